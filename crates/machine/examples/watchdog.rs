//! A machine of one's own, driven by hand: no clock, no task, and an hour passes in no time.

use std::time::Duration;

use peerage_machine::{Backoff, Driver, Effects, Machine, Rng, Time};

/// Asks again, more and more patiently, until it is answered.
struct Asker {
    failures: u32,
    rng: Rng,
}

const PATIENCE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

impl Machine for Asker {
    type In = &'static str;
    type Out = String;
    type Timer = &'static str;

    fn handle(&mut self, now: Time, input: &'static str, fx: &mut Effects<String, &'static str>) {
        match input {
            "answer" => {
                fx.disarm("again");
                fx.emit(format!("answered after {} questions", self.failures));
            }
            _ => self.expire(now, "again", fx),
        }
    }

    fn expire(&mut self, now: Time, timer: &'static str, fx: &mut Effects<String, &'static str>) {
        self.failures += 1;
        fx.emit(format!("{now:?}: question {}", self.failures));
        fx.arm(timer, now + PATIENCE.delay(self.failures, &mut self.rng));
    }
}

fn main() {
    let mut driver = Driver::new(Asker { failures: 0, rng: Rng::new(1) });
    let mut now = Time::ZERO;
    driver.handle(now, "start");
    while now < Time::ZERO + Duration::from_secs(300) {
        driver.drain().for_each(|line| println!("{line}"));
        let Some(deadline) = driver.next_deadline() else { break };
        now = deadline;
        driver.expire_due(now);
    }
    driver.handle(now, "answer");
    driver.drain().for_each(|line| println!("{line}"));
    assert!(driver.next_deadline().is_none());
}
