//! What a call costs, and its tool's class, by `[tools]`.

use crate::bounds::MAX_MESSAGE_DEPTH;
use crate::config::{Config, Cost, Glob, Named, Per, Rule};
use crate::json::Json;
use crate::request::Payload;

/// The longer the part before the first `*`, the more a pattern says; a name says all.
pub(super) fn weight(pattern: Option<&str>) -> usize {
    pattern.map_or(0, |text| if text.contains('*') { 1 + Glob::new(text).literal_prefix_len() } else { usize::MAX })
}

/// What the limits need of the rules for tools; empty where no rule says a cost and no limit asks for a class.
#[derive(Debug)]
pub(super) struct Tools(Named<Tool>);

#[derive(Debug)]
struct Tool {
    class: Option<Box<str>>,
    cost: Option<Cost>,
}

/// The arguments do not hold the number that the cost is made of.
#[derive(Debug)]
pub(super) struct Unreadable;

impl Tools {
    pub(super) fn new(config: &Config) -> Self {
        let has_class = config.limits.rules.iter().any(|rule| rule.per.contains(&Per::Class));
        if !has_class && config.tools.values().all(|rule| rule.cost.is_none()) {
            return Self(Named::default());
        }
        let tool = |rule: &Rule| Tool { class: rule.class.as_deref().map(Box::from), cost: rule.cost.clone() };
        Self(config.tools.iter().map(|(name, rule)| (name.as_str(), tool(rule))).collect())
    }

    /// The class that the tool's own rule gives it.
    pub(super) fn class(&self, tool: &str) -> Option<&str> {
        self.0.find(tool)?.class.as_deref()
    }

    /// The cost of a call, 1 where nothing is said.
    pub(super) fn cost(&self, tool: &str, payload: Payload<'_>) -> Result<u32, Unreadable> {
        match self.0.find(tool).and_then(|known| known.cost.as_ref()) {
            None => Ok(1),
            Some(Cost::Fixed(cost)) => Ok(*cost),
            Some(Cost::Argument { path, factor, divisor }) => {
                let number = argument(payload, path).ok_or(Unreadable)?;
                rounded_up(number * f64::from(*factor) / f64::from(*divisor)).ok_or(Unreadable)
            }
        }
    }
}

fn argument(payload: Payload<'_>, path: &[Box<str>]) -> Option<f64> {
    let (text, above): (_, &[&str]) = match payload {
        Payload::None => return None,
        Payload::Arguments(text) => (text, &[]),
        Payload::Params(text) => (text, &["arguments"]),
        Payload::Message(text) => (text, &["params", "arguments"]),
    };
    let json = Json::parse(text, MAX_MESSAGE_DEPTH).ok()?;
    let mut value = &json;
    for step in above.iter().copied().chain(path.iter().map(|step| &**step)) {
        value = value.member(step)?;
    }
    value.as_f64()
}

/// A cost is at least 1, so that no number makes a call free; a negative one and one beyond all quotas are none.
fn rounded_up(cost: f64) -> Option<u32> {
    if !(0.0..=f64::from(u32::MAX)).contains(&cost) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds, and whole")]
    Some((cost.ceil() as u32).max(1))
}
