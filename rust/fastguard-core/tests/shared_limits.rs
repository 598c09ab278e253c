//! Calls whose windows several processes share: what is asked outside, and what its answer lets pass.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::time::Duration;

use fastguard_core::clock::FakeClock;
use fastguard_core::config::Meter;
use fastguard_core::gate::{Agreeing, Answer, ClaimAnswer, Outcome};
use fastguard_core::limits::{Begun, Given, Verdict, Wanted};
use fastguard_core::token::{Attached, Revocation};
use fastguard_core::{Config, Decision, Gate, GateError, ToolRequest, UnixTime};
use serde_json::json;
use signing::Signer;

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_800_000_000;
const SECRET: &[u8; 32] = b"what all processes of one server";

struct World {
    signer: Signer,
    clock: FakeClock,
}

impl World {
    fn new() -> Self {
        Self { signer: Signer::elliptic(), clock: FakeClock::at(NOW) }
    }

    fn config(&self, limits: &str, secret: &[u8]) -> Config {
        let keys = json!({"keys": [self.signer.jwk("k")]});
        let text = format!(
            "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{keys}'\n\
             [tools.open]\nopen = true\n[tools.closed]\ntier = \"block\"\n[audit]\nenabled = false\n\
             [state]\nurl = \"redis://localhost\"\nprocesses = 4\n{limits}"
        );
        let mut config = Config::from_toml(&text, None).unwrap();
        config.set_state_secret("test", secret).unwrap();
        config
    }

    fn gate(&self, limits: &str) -> Gate {
        Gate::new(self.config(limits, SECRET), None).unwrap()
    }

    fn request(&self, tool: &str, subject: &str) -> ToolRequest {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "client_id": "agent", "jti": "t", "iat": NOW, "exp": NOW + 60,
        });
        ToolRequest::tool(tool, None, Some(self.signer.token("k", &claims).into()), None)
    }

    fn agreeing(&self, gate: &Gate, request: &ToolRequest) -> Agreeing {
        match gate.check(request, self.clock.now()).unwrap() {
            Decision::Agreeing(agreeing) => agreeing,
            other => panic!("{other:?}"),
        }
    }

    fn counted(&self, gate: &Gate, request: &ToolRequest, verdict: &Verdict) -> Result<Decision, GateError> {
        let agreeing = self.agreeing(gate, request);
        gate.agreed(request, &agreeing, &answer(verdict), self.clock.now(), &Attached, false)
    }
}

fn answer(verdict: &Verdict) -> Answer {
    Answer { claim: ClaimAnswer::New, limits: Some((verdict.clone(), "exact")) }
}

fn code(result: Result<Decision, GateError>) -> String {
    match result {
        Ok(Decision::Allowed(_)) => "allowed".to_owned(),
        Err(GateError::Denied(denial, _)) => denial.code().to_owned(),
        other => panic!("{other:?}"),
    }
}

const TWO_RULES: &str = "[[limits.rules]]\nname = \"mine\"\nper = \"principal\"\nquota = [\"10/second\", \"100/hour\"]\n\
                         [[limits.rules]]\nname = \"all\"\nper = \"everyone\"\nquota = \"1000/minute\"\n";
const ADMITTED: Verdict = Verdict::Admitted { tightest: 0, remaining: 9 };

#[test]
fn call_names_every_window_that_counts_it() {
    let world = World::new();
    let gate = world.gate(TWO_RULES);
    let mut found: Vec<_> = world
        .agreeing(&gate, &world.request("open", "alice"))
        .charges()
        .iter()
        .map(|charge| (charge.rule.to_string(), charge.quota, charge.window.as_secs(), charge.cost))
        .collect();
    found.sort();
    let expected = [("all", 1_000, 60, 1), ("mine", 10, 1, 1), ("mine", 100, 3_600, 1)];
    assert_eq!(found, expected.map(|(rule, quota, window, cost)| (rule.to_owned(), quota, window, cost)));
}

#[test]
fn processes_with_one_secret_name_windows_alike_and_others_do_not() {
    let world = World::new();
    let keys = |gate: &Gate, subject| -> Vec<u128> {
        world.agreeing(gate, &world.request("open", subject)).charges().iter().map(|charge| charge.key).collect()
    };
    let (one, two) = (world.gate(TWO_RULES), world.gate(TWO_RULES));
    let other = Gate::new(world.config(TWO_RULES, b"what processes of another server"), None).unwrap();
    assert_eq!(keys(&one, "alice"), keys(&two, "alice"));
    assert!(keys(&one, "alice").iter().all(|key| !keys(&other, "alice").contains(key)));
    // One window is everyone's, and two are her own.
    let (alice, bob) = (keys(&one, "alice"), keys(&one, "bob"));
    assert_eq!(alice.iter().filter(|key| bob.contains(key)).count(), 1);
}

#[test]
fn verdict_decides_and_names_its_rule() {
    let world = World::new();
    let gate = world.gate(TWO_RULES);
    let request = world.request("open", "alice");
    let place = |rule: &str| world.agreeing(&gate, &request).charges().iter().position(|it| &*it.rule == rule).unwrap();

    let admitted = Verdict::Admitted { tightest: place("all"), remaining: 7 };
    let Decision::Allowed(call) = world.counted(&gate, &request, &admitted).unwrap() else { panic!("not allowed") };
    let standing = call.admitted().standing().unwrap();
    assert_eq!((&*standing.rule, standing.remaining), ("all", 7));

    let retry_after = Some(Duration::from_secs(12));
    let refused = Verdict::Refused { place: place("all"), remaining: 0, retry_after };
    let Err(GateError::Denied(denial, _)) = world.counted(&gate, &request, &refused) else { panic!("not refused") };
    assert_eq!((denial.code(), denial.status(), denial.retry_after()), ("quota_spent", 429, retry_after));
    assert_eq!(denial.spent(), Some(("all", 1_000, Duration::from_secs(60), 0, "calls")));

    let away = Verdict::Unavailable { retry_after: Duration::from_secs(1) };
    let Err(GateError::Denied(denial, _)) = world.counted(&gate, &request, &away) else { panic!("not refused") };
    assert_eq!((denial.code(), denial.status()), ("limits_unavailable", 503));
}

const OWING: &str = "[[limits.rules]]\nname = \"at once\"\nper = \"everyone\"\nconcurrent = 2\n\
                     [[limits.rules]]\nname = \"rows\"\nper = \"principal\"\nmeter = \"rows\"\nquota = \"50/hour\"\n";

fn ending(rows: u64) -> Outcome {
    Outcome {
        status: "ok".into(),
        error: None,
        duration: Duration::ZERO,
        rows: Some(rows),
        bytes: Some(9),
        items: None,
        summary_failed: false,
    }
}

#[test]
fn call_that_is_counted_until_it_ends_asks_for_its_place_and_tells_of_its_ending_once() {
    let world = World::new();
    let gate = world.gate(OWING);
    let request = world.request("open", "alice");
    let agreeing = world.agreeing(&gate, &request);
    let places: Vec<_> = agreeing.places().iter().map(|place| (place.rule.to_string(), place.most)).collect();
    let looks: Vec<_> = agreeing.charges().iter().map(|it| (it.rule.to_string(), it.quota, it.meter)).collect();
    assert_eq!(places, [("at once".to_owned(), 2)]);
    assert_eq!(looks, [("rows".to_owned(), 50, Some(Meter::Rows))]);

    let verdict = Verdict::Admitted { tightest: 1, remaining: 0 };
    let decided = gate.agreed(&request, &agreeing, &answer(&verdict), world.clock.now(), &Attached, false).unwrap();
    let Decision::Allowed(call) = decided else { panic!("not allowed") };
    // What tells nothing of calls has no standing.
    assert!(call.admitted().standing().is_none());
    assert!(gate.take_ended().is_empty());
    gate.finish(&call, ending(7), UnixTime::from_seconds(NOW)).unwrap();
    gate.finish(&call, ending(7), UnixTime::from_seconds(NOW)).unwrap();
    let ended = gate.take_ended();
    let told: Vec<_> = ended.iter().map(|it| (Some(it.ticket), it.charges[0].key, it.charges[0].amount)).collect();
    assert_eq!(told, [(agreeing.ticket(), agreeing.charges()[0].key, 7)]);
    assert!(gate.take_ended().is_empty());
}

#[test]
fn process_takes_no_more_places_than_all_together_may_have() {
    let world = World::new();
    let gate = world.gate(OWING);
    let request = world.request("open", "alice");
    let held: Vec<_> = (0..2).map(|_| world.agreeing(&gate, &request)).collect();
    assert_eq!(code(gate.check(&request, world.clock.now())), "concurrency_spent");

    let tickets: Vec<_> = held.iter().filter_map(Agreeing::ticket).collect();
    drop(held);
    // Nobody has them any more, and nothing was charged.
    assert_eq!(
        gate.take_ended().iter().map(|it| (it.ticket, it.charges.len())).collect::<Vec<_>>(),
        [(tickets[0], 0), (tickets[1], 0)]
    );
    world.agreeing(&gate, &request);
}

#[test]
fn refused_place_and_spent_meter_are_named() {
    let world = World::new();
    let gate = world.gate(OWING);
    let request = world.request("open", "alice");
    let refused = |place| {
        let verdict = Verdict::Refused { place, remaining: 0, retry_after: None };
        match world.counted(&gate, &request, &verdict) {
            Err(GateError::Denied(denial, _)) => denial,
            other => panic!("{other:?}"),
        }
    };
    let hour = Duration::from_secs(3_600);
    assert_eq!(refused(0).spent(), Some(("rows", 50, hour, 0, "rows")));
    assert_eq!((refused(1).code(), refused(1).limit()), ("concurrency_spent", Some(("at once", 0))));
    assert_eq!(refused(2).code(), "limits_unavailable");
}

#[test]
fn verdict_that_names_no_window_of_the_call_lets_nothing_pass() {
    let world = World::new();
    let gate = world.gate(TWO_RULES);
    let request = world.request("open", "alice");
    for verdict in [
        Verdict::Admitted { tightest: 3, remaining: 1 },
        Verdict::Refused { place: 3, remaining: 0, retry_after: None },
    ] {
        assert_eq!(code(world.counted(&gate, &request, &verdict)), "limits_unavailable");
    }
}

#[test]
fn policy_and_revocation_hold_after_the_verdict() {
    let world = World::new();
    let gate = world.gate("");
    assert_eq!(code(world.counted(&gate, &world.request("closed", "alice"), &ADMITTED)), "tier_blocked");
    assert_eq!(code(world.counted(&gate, &world.request("unknown", "alice"), &ADMITTED)), "target_unknown");

    let request = world.request("open", "alice");
    let agreeing = world.agreeing(&gate, &request);
    let revocation = Revocation { subject: Some("alice".into()), ..Revocation::default() };
    gate.revoke(revocation, UnixTime::from_seconds(NOW)).unwrap();
    let decided = gate.agreed(&request, &agreeing, &answer(&ADMITTED), world.clock.now(), &Attached, false);
    assert_eq!(code(decided), "token_revoked");
}

#[test]
fn call_that_no_rule_counts_asks_nobody() {
    let world = World::new();
    let gate = world.gate("[[limits.rules]]\nper = \"principal\"\ntool = \"other\"\nquota = \"1/minute\"\n");
    assert_eq!(code(gate.check(&world.request("open", "alice"), world.clock.now())), "allowed");
}

#[test]
fn windows_of_a_process_need_no_store_where_the_mode_says_so() {
    let world = World::new();
    let gate = world.gate("[limits]\nmode = \"local\"\n");
    assert_eq!(code(gate.check(&world.request("open", "alice"), world.clock.now())), "allowed");
}

#[test]
fn nested_call_is_counted_anew_and_needs_no_token() {
    let world = World::new();
    let gate = world.gate("");
    let Decision::Allowed(parent) = world.counted(&gate, &world.request("open", "alice"), &ADMITTED).unwrap() else {
        panic!("not allowed")
    };
    let request = ToolRequest::tool("open", None, None, None);
    let Decision::Agreeing(agreeing) = gate.check_nested(&parent, &request, world.clock.now()).unwrap() else {
        panic!("not counted")
    };
    let decided = gate.agreed(&request, &agreeing, &answer(&ADMITTED), world.clock.now(), &Attached, false);
    assert_eq!(code(decided), "allowed");
}

#[test]
fn store_cannot_change_while_the_guard_runs() {
    let world = World::new();
    let gate = world.gate("");
    gate.reload(world.config(TWO_RULES, SECRET)).unwrap();
    let refused = gate.reload(world.config("", b"another secret of thirty-two byt")).unwrap_err();
    assert!(refused.to_string().contains("start it anew"), "{refused}");
}

#[test]
fn store_needs_a_secret() {
    let world = World::new();
    let mut config = world.config("", SECRET);
    config.state.as_mut().unwrap().secret = fastguard_core::config::Secret::default();
    let refused = Gate::new(config, None).unwrap_err();
    assert!(refused.to_string().contains("state.secret_file"), "{refused}");
}

// --- permits that a process has in advance -------------------------------------------------------

const LEASED: &str = "[limits]\nmode = \"leased\"\n[[limits.rules]]\nname = \"mine\"\nper = \"principal\"\n\
                      quota = \"1000/minute\"\n[[limits.rules]]\nname = \"all\"\nper = \"everyone\"\nquota = \"100000/hour\"\n";
const MINUTE: Duration = Duration::from_secs(60);

/// Has the store asked for the leases of a call that waits for it, which grants so many in each window, or has no room in this one.
fn ask(world: &World, gate: &Gate, agreeing: &Agreeing, granted: Result<u32, usize>) {
    let permits = gate.permits();
    let wanted: Vec<_> = agreeing
        .charges()
        .iter()
        .map(|it| {
            let (key, quota, window, cost) = (it.key, u32::try_from(it.quota).unwrap(), it.window, it.cost);
            Wanted { key, quota, window, cost, is_leased: permits.is_leasable(it.quota, window) }
        })
        .collect();
    let Begun::Asking(asking) = permits.begin(&wanted, false, world.clock.now().own) else {
        panic!("nothing is asked")
    };
    match granted {
        Ok(granted) => {
            let given = vec![Given { granted, remaining: 500, slot: 1 }; asking.questions().len()];
            asking.granted(&given, world.clock.now().own).unwrap();
        }
        Err(place) => asking.refused(Some(place), MINUTE, world.clock.now().own),
    }
}

fn leased(world: &World, granted: u32) -> (Gate, ToolRequest) {
    let (gate, request) = (world.gate(LEASED), world.request("open", "alice"));
    ask(world, &gate, &world.agreeing(&gate, &request), Ok(granted));
    (gate, request)
}

#[test]
fn call_whose_permits_are_at_hand_asks_nobody() {
    let world = World::new();
    let (gate, request) = leased(&world, 3);

    for remaining in [501, 500] {
        let Decision::Allowed(call) = gate.check(&request, world.clock.now()).unwrap() else { panic!("not allowed") };
        // Of two windows that have the same left, the first is named.
        assert_eq!(call.admitted().standing().unwrap().remaining, remaining);
    }
    // The call that asked has used the third.
    world.agreeing(&gate, &request);
    assert_eq!(gate.permits().answered(), 2);
}

#[test]
fn permit_that_is_about_to_end_is_not_used() {
    let mut world = World::new();
    let (gate, request) = leased(&world, 9);
    // A lease lasts a twentieth of the window, and what is left of it must be more than a tenth of a second.
    world.clock.advance(Duration::from_millis(2_899));
    assert_eq!(code(gate.check(&request, world.clock.now())), "allowed");
    world.clock.advance(Duration::from_millis(1));
    world.agreeing(&gate, &request);
}

#[test]
fn spent_window_refuses_without_asking_until_it_is_worth_asking_again() {
    let mut world = World::new();
    let (gate, request) = (world.gate(LEASED), world.request("open", "alice"));
    let agreeing = world.agreeing(&gate, &request);
    let mine = agreeing.charges().iter().position(|it| &*it.rule == "mine").unwrap();
    ask(&world, &gate, &agreeing, Err(mine));

    world.clock.advance(Duration::from_millis(100));
    let Err(GateError::Denied(denial, _)) = gate.check(&request, world.clock.now()) else { panic!("not refused") };
    assert_eq!((denial.code(), denial.spent()), ("quota_spent", Some(("mine", 1_000, MINUTE, 0, "calls"))));
    assert_eq!(denial.retry_after(), Some(Duration::from_millis(59_900)));

    world.clock.advance(Duration::from_millis(300));
    world.agreeing(&gate, &request);
}

#[test]
fn call_that_is_counted_until_it_ends_asks_whatever_is_at_hand() {
    let world = World::new();
    let (gate, request) = leased(&world, 9);
    let at_once = "[[limits.rules]]\nper = \"everyone\"\ntool = \"open\"\nconcurrent = 2\n";
    gate.reload(world.config(&format!("{LEASED}{at_once}"), SECRET)).unwrap();
    assert_eq!(world.agreeing(&gate, &request).places().len(), 1);

    // One that it does not count asks nobody.
    let other = "[[limits.rules]]\nper = \"everyone\"\ntool = \"other\"\nconcurrent = 2\n";
    gate.reload(world.config(&format!("{LEASED}{other}"), SECRET)).unwrap();
    assert_eq!(code(gate.check(&request, world.clock.now())), "allowed");
}

#[test]
fn call_that_policy_refuses_has_used_its_permits() {
    let world = World::new();
    let (gate, _) = leased(&world, 3);
    let closed = world.request("closed", "alice");
    for _ in 0..2 {
        assert_eq!(code(gate.check(&closed, world.clock.now())), "tier_blocked");
    }
    world.agreeing(&gate, &closed);
}

#[test]
fn nested_call_uses_permits_at_hand() {
    let world = World::new();
    let (gate, request) = leased(&world, 9);
    let Decision::Allowed(parent) = gate.check(&request, world.clock.now()).unwrap() else { panic!("not allowed") };
    let nested = ToolRequest::tool("open", None, None, None);
    assert_eq!(code(gate.check_nested(&parent, &nested, world.clock.now())), "allowed");
}

#[test]
fn reload_keeps_permits_of_rules_that_stay_and_gives_none_to_others() {
    let world = World::new();
    let (gate, request) = leased(&world, 9);
    gate.reload(world.config(LEASED, SECRET)).unwrap();
    assert_eq!(code(gate.check(&request, world.clock.now())), "allowed");

    gate.reload(world.config(&LEASED.replace("1000/minute", "2000/minute"), SECRET)).unwrap();
    world.agreeing(&gate, &request);
}

#[test]
fn rule_too_small_for_leases_is_asked_for_each_call() {
    let world = World::new();
    let (gate, request) = leased(&world, 9);
    // Fewer than 128 for each of 4 processes.
    let small = "[[limits.rules]]\nper = \"tool\"\nquota = \"511/minute\"\n";
    gate.reload(world.config(&format!("{LEASED}{small}"), SECRET)).unwrap();
    world.agreeing(&gate, &request);
}

#[test]
fn child_process_begins_without_permits() {
    let world = World::new();
    let (gate, request) = leased(&world, 9);
    gate.after_fork().unwrap();
    world.agreeing(&gate, &request);
}
