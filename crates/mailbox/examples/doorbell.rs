//! What a message costs: one boxed ractor message an item, against a data queue with a doorbell.
//!
//! Prints one line a case, in the form `bench=… impl=… metric=… value=… unit=…`: the median of the rounds, in
//! nanoseconds an item from the first offer until the actor has handled the last.

use std::time::Instant;

use peerage_mailbox::{Bell, Capacity, Inlet, Item, Supervisor, data_queue, spawn_child};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

const ITEMS: usize = 200_000;
const ROUNDS: usize = 5;

/// 64 bytes, about what a small frame is.
struct Frame([u64; 8]);

impl Item for Frame {}

enum Msg {
    Frame(Box<Frame>),
    Wake,
}

struct Counter;

struct State {
    inlet: Inlet<Frame>,
    left: usize,
    sum: u64,
    done: Option<oneshot::Sender<u64>>,
}

impl State {
    fn count(&mut self, frame: &Frame) {
        self.sum = self.sum.wrapping_add(frame.0[0]);
        self.left -= 1;
        if let Some(done) = self.done.take_if(|_| self.left == 0) {
            let _ = done.send(self.sum);
        }
    }
}

impl Actor for Counter {
    type Msg = Msg;
    type State = State;
    type Arguments = State;

    async fn pre_start(&self, myself: ActorRef<Msg>, state: State) -> Result<State, ActorProcessingErr> {
        state.inlet.bind(Bell::new(&myself, || Msg::Wake));
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Frame(frame) => state.count(&frame),
            Msg::Wake => {
                for frame in state.inlet.take(256) {
                    state.count(&frame);
                }
                state.inlet.ring_if_more();
            }
        }
        Ok(())
    }
}

/// Nanoseconds an item when items come in batches of `batch`, with the runtime's other work in between.
async fn round(batch: usize, doorbell: bool) -> f64 {
    let (outlet, inlet) = data_queue::<Frame>(Capacity { items: ITEMS, weight: ITEMS });
    let (done, finished) = oneshot::channel();
    let state = State { inlet, left: ITEMS, sum: 0, done: Some(done) };
    let (actor, child) = spawn_child(Counter, state, &Supervisor::none()).await.expect("starts");
    let start = Instant::now();
    for n in 0..ITEMS {
        let frame = Frame([n as u64; 8]);
        if doorbell {
            outlet.offer(frame).expect("room for all");
        } else {
            actor.cast(Msg::Frame(Box::new(frame))).expect("alive");
        }
        if n % batch == batch - 1 {
            tokio::task::yield_now().await;
        }
    }
    let sum = finished.await.expect("handled");
    let nanos = start.elapsed().as_nanos() as f64 / ITEMS as f64;
    assert_eq!(sum, (0..ITEMS as u64).sum::<u64>());
    child.stop();
    child.wait().await;
    nanos
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for batch in [1, 8, 64] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for doorbell in [false, true] {
                times[usize::from(doorbell)].push(round(batch, doorbell).await);
            }
        }
        for (name, times) in ["cast", "doorbell"].iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            println!("bench=mailbox-batch{batch} impl={name} metric=item_ns value={:.0} unit=ns", times[ROUNDS / 2]);
        }
    }
}
