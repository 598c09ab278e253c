//! Two things at once: the second thread of a log that has much to write.

use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// Does `work` on a thread of its own and `meanwhile` on this one, or one after the other where no thread is to be had.
pub(super) fn beside<W: Send, M>(mut work: impl FnMut() -> W + Send, meanwhile: impl FnOnce() -> M) -> (W, M) {
    let (done, meanwhile) = scope(|scope| {
        let thread = Builder::new().name("fastguard-disk".to_owned()).spawn_scoped(scope, &mut work);
        let meanwhile = meanwhile();
        // A panic there ends the log as one here does.
        (thread.ok().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))), meanwhile)
    });
    (done.unwrap_or_else(work), meanwhile)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn work_and_what_is_done_meanwhile_are_done_at_once() {
        let (ask, asked) = channel();
        let (answer, answered) = channel();
        // Each waits for the other.
        let work = move || asked.recv_timeout(PATIENCE).is_ok_and(|()| answer.send(()).is_ok());
        let meanwhile = || ask.send(()).is_ok() && answered.recv_timeout(PATIENCE).is_ok();

        assert_eq!(beside(work, meanwhile), (true, true));
    }

    #[test]
    fn panic_of_work_is_one_of_whoever_asked_for_it() {
        let asked =
            std::panic::catch_unwind(|| beside(|| assert!(std::hint::black_box(false), "the test's panic"), || ()));

        assert!(asked.is_err());
    }
}
