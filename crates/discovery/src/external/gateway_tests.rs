//! Tests of the mapping's shell, against a gateway that does as it is told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::external::{MappingConfig, Protocol};

/// What a gateway was asked, and what it says.
#[derive(Debug, Default)]
struct Book {
    finds: usize,
    requests: Vec<MapRequest>,
    open: BTreeMap<Protocol, u16>,
    absent: bool,
    refuses: bool,
    /// Answers never come.
    hangs: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Book>>);

impl Fake {
    fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.0.lock().expect("not poisoned"))
    }

    async fn hang(&self) {
        if self.book(|book| book.hangs) {
            std::future::pending::<()>().await;
        }
    }
}

impl Gateway for Fake {
    fn find(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            self.book(|book| book.finds += 1);
            self.hang().await;
            if self.book(|book| book.absent) { Err(GatewayError::None) } else { Ok(()) }
        })
    }

    fn map(&mut self, request: MapRequest) -> Answer<'_, Granted> {
        Box::pin(async move {
            self.book(|book| book.requests.push(request));
            self.hang().await;
            // Another port than the one that was wished for, and the same one ever after.
            let port = if request.any { request.external + 1000 } else { request.external };
            self.book(|book| match book.refuses {
                true => Err(GatewayError::Refused("no".into())),
                false => {
                    book.open.insert(request.protocol, port);
                    Ok(Granted { external: ([203, 0, 113, 1], port).into(), lease: request.lease })
                }
            })
        })
    }

    fn unmap(&mut self, protocol: Protocol, _internal: u16, external: u16) -> Answer<'_, ()> {
        Box::pin(async move {
            self.hang().await;
            self.book(|book| assert_eq!(book.open.remove(&protocol), Some(external)));
            Ok(())
        })
    }
}

type Told = Arc<Mutex<Vec<Option<Mapping>>>>;

fn spawn(fake: &Fake) -> (Mapper, Told) {
    let told = Told::default();
    let keep = told.clone();
    let port = Port::from_fn(move |mapping| keep.lock().expect("not poisoned").push(mapping));
    let machine = MappingMachine::new(MappingConfig::recommended(), Some(30303), Some(30304), 1);
    (Mapper::spawn(fake.clone(), machine, Clock::simulated(Duration::from_secs(1)), port), told)
}

fn last(told: &Told) -> Option<Option<Mapping>> {
    told.lock().expect("not poisoned").last().copied()
}

const BOTH: Mapping =
    Mapping { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), tcp: Some(31303), udp: Some(31304) };

#[tokio::test(start_paused = true)]
async fn both_ports_are_mapped_renewed_for_a_day_and_given_back_at_the_end() {
    let fake = Fake::default();
    let (mapper, told) = spawn(&fake);
    tokio::time::sleep(Duration::from_secs(24 * 3600 + 1)).await;
    assert_eq!(last(&told), Some(Some(BOTH)));
    assert!(told.lock().expect("not poisoned").len() <= 2, "told once for each port, whatever is renewed");
    let (finds, requests) = fake.book(|book| (book.finds, book.requests.clone()));
    assert_eq!((finds, requests.len()), (1, 2 * (1 + 24 * 12)), "each five minutes");
    assert!(requests.iter().skip(2).all(|request| !request.any && request.external > 31000), "the granted port");
    mapper.stop(Duration::from_secs(1)).await;
    assert!(fake.book(|book| book.open.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_comes_later_is_found_and_one_that_stops_granting_loses_its_place() {
    let fake = Fake::default();
    fake.book(|book| book.absent = true);
    let (_mapper, told) = spawn(&fake);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!((3..10).contains(&fake.book(|book| book.finds)), "{:?}", fake.book(|book| book.finds));
    assert_eq!(last(&told), None);
    fake.book(|book| book.absent = false);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(last(&told), Some(Some(BOTH)));
    fake.book(|book| book.refuses = true);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(last(&told), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_answers_holds_up_neither_the_start_nor_the_end() {
    let fake = Fake::default();
    fake.book(|book| book.hangs = true);
    let begun = tokio::time::Instant::now();
    let (mapper, told) = spawn(&fake);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(10)).await;
    mapper.stop(Duration::from_secs(1)).await;
    assert!(begun.elapsed() <= Duration::from_secs(11));
    // One that answered before, and does not take its ports back.
    let fake = Fake::default();
    let (mapper, told_later) = spawn(&fake);
    tokio::time::sleep(Duration::from_secs(10)).await;
    fake.book(|book| book.hangs = true);
    let begun = tokio::time::Instant::now();
    mapper.stop(Duration::from_secs(1)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!((last(&told), last(&told_later)), (None, Some(None)));
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_is_given_up_and_asked_again() {
    let fake = Fake::default();
    fake.book(|book| book.hangs = true);
    let (_mapper, told) = spawn(&fake);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fake.book(|book| book.hangs = false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(last(&told), Some(Some(BOTH)));
}
