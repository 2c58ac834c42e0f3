//! Streams that peers open, and those that this node opens.

use peerage_queue::stream::StreamCode;

use super::*;
use crate::handler::{AddError, Rate, StreamHandlerConfig};
use crate::wire::streams::{Header, HeaderError, codes};

const OPEN: fn() -> Result<Header, HeaderError> = || Ok(Header::Open { handler: echo() });

fn limits(change: impl FnOnce(&mut crate::StreamLimits)) -> Config {
    let mut config = Config::recommended();
    change(&mut config.streams);
    config
}

/// One with three peers, that serves streams.
fn serving(config: Config, handler: StreamHandlerConfig) -> Node {
    let mut node = Node::with(config);
    (1..=3).for_each(|n| node.up(n));
    node.feed(In::AddStreams { token: 0, name: "echo/1".to_owned(), config: handler });
    assert_eq!(node.others, [Out::StreamsAdded { token: 0, result: Ok(echo()) }]);
    node.others.clear();
    node
}

fn usual() -> Node {
    serving(Config::recommended(), StreamHandlerConfig::recommended())
}

impl Node {
    fn came(&mut self, stream: u64, from: u8) -> Vec<Out> {
        self.feed(In::StreamCame { stream, session: session(from) });
        std::mem::take(&mut self.others)
    }

    fn begins(&mut self, stream: u64, header: Result<Header, HeaderError>) -> Vec<Out> {
        self.feed(In::StreamHeader { stream, header });
        std::mem::take(&mut self.others)
    }

    /// A stream comes and begins. What becomes of it.
    fn opens(&mut self, stream: u64, from: u8) -> Vec<Out> {
        assert_eq!(self.came(stream, from), [Out::ReadHeader { stream }]);
        self.begins(stream, OPEN())
    }

    fn open(&mut self, stream: u64, to: u8) -> Result<(), OpenStreamError> {
        self.feed(In::OpenStream { stream, peer: peer(to), handler: echo() });
        let [Out::Opened { result, .. }] = self.others[..] else { panic!("one answer: {:?}", self.others) };
        self.others.clear();
        result.map(|(recipient, header)| {
            assert_eq!((recipient.session, header), (session(to), Header::Open { handler: echo() }));
        })
    }

    fn over(&mut self, stream: u64) {
        self.feed(In::StreamOver { stream });
    }
}

fn served(stream: u64, from: u8) -> Out {
    Out::ServeStream { stream, handler: echo(), from: peer(from), session: session(from) }
}

fn refused(stream: u64, code: StreamCode) -> Out {
    Out::RefuseStream { stream, code }
}

#[test]
fn a_stream_goes_to_the_handler_that_its_header_names_and_has_a_place_until_it_is_over() {
    let mut node = usual();
    assert_eq!(node.opens(1, 2), [served(1, 2)]);
    assert_eq!(node.driver.machine().stats().streams_served, 1);
    node.down(2);
    assert_eq!(node.driver.machine().stats().streams_served, 1, "the application still has it");
    node.over(1);
    node.over(1);
    assert!(node.is_clean());
    assert_eq!(node.begins(1, OPEN()), [], "it is not here any more");
}

#[test]
fn a_stream_for_a_handler_that_is_not_here_is_refused_and_opening_many_is_a_flood() {
    let mut node = Node::new(1);
    for stream in 0..1000 {
        assert_eq!(node.opens(stream, 1), [refused(stream, codes::UNKNOWN_HANDLER)]);
    }
    assert_eq!(node.counted(Count::StreamUnknownHandler), 1000);
    assert_eq!(node.reports.len(), 1000 - 256, "so many are forgiven");
    assert!(node.is_clean());
}

#[test]
fn streams_without_a_header_are_bounded_by_peer_and_in_all_and_end_by_themselves() {
    let config = limits(|limits| (limits.pending_per_peer, limits.pending) = (2, 3));
    let mut node = serving(config, StreamHandlerConfig::recommended());
    for (stream, from) in [(1, 1), (2, 1), (4, 2)] {
        assert_eq!(node.came(stream, from), [Out::ReadHeader { stream }]);
    }
    assert_eq!(node.came(3, 1), [refused(3, codes::THROTTLED)], "of one peer");
    assert_eq!(node.came(5, 3), [refused(5, codes::THROTTLED)], "of all");
    node.wait(9 * SECOND);
    assert_eq!(node.begins(2, OPEN()), [served(2, 1)], "late, and in time");
    node.wait(SECOND);
    assert_eq!(std::mem::take(&mut node.others), [refused(1, codes::HEADER), refused(4, codes::HEADER)]);
    assert_eq!(node.counted(Count::StreamLate), 2);
    assert_eq!(node.begins(1, OPEN()), [], "too late");
    node.over(2);
    assert!(node.is_clean());
}

#[test]
fn a_header_that_is_none_is_refused_and_only_a_malformed_one_is_blamed_at_once() {
    for (error, reports) in [(HeaderError::Ended, 0), (HeaderError::Kind(30), 0), (HeaderError::Length(9), 1)] {
        let mut node = usual();
        assert_eq!(node.came(1, 1), [Out::ReadHeader { stream: 1 }]);
        assert_eq!(node.begins(1, Err(error)), [refused(1, codes::HEADER)]);
        assert_eq!(node.reports.len(), reports, "{error:?}");
        assert!(node.is_clean());
    }
    let mut node = usual();
    for stream in 0..300 {
        node.came(stream, 1);
        node.begins(stream, Err(HeaderError::Ended));
    }
    assert_eq!(node.reports.len(), 300 - 256, "opened and ended in a loop");
}

#[test]
fn a_handler_has_so_many_streams_of_a_peer_and_of_all_and_the_node_too() {
    let handler = StreamHandlerConfig { per_peer: 2, total: 3, ..StreamHandlerConfig::recommended() };
    let mut node = serving(Config::recommended(), handler);
    for (stream, from) in [(1, 1), (2, 1), (4, 2)] {
        assert_eq!(node.opens(stream, from), [served(stream, from)]);
    }
    assert_eq!(node.opens(3, 1), [refused(3, codes::THROTTLED)], "of one peer");
    assert_eq!(node.opens(5, 3), [refused(5, codes::THROTTLED)], "of the handler");
    node.over(1);
    assert_eq!(node.opens(6, 3), [served(6, 3)]);
    for (change, of) in [
        (limits(|limits| limits.served_per_peer = 1), 1),
        (limits(|limits| (limits.served_per_peer, limits.served) = (1, 1)), 2),
    ] {
        let mut node = serving(change, StreamHandlerConfig::recommended());
        assert_eq!(node.opens(1, 1), [served(1, 1)]);
        assert_eq!(node.opens(2, of), [refused(2, codes::THROTTLED)]);
        node.over(1);
        assert_eq!(node.opens(3, of), [served(3, of)]);
        node.over(3);
        assert!(node.is_clean());
    }
}

#[test]
fn only_members_and_only_so_often_where_it_says_so() {
    let mut node = serving(
        Config::recommended(),
        StreamHandlerConfig { members_only: true, ..StreamHandlerConfig::recommended() },
    );
    node.feed(In::Members([(peer(2), 1)].into()));
    assert_eq!(node.opens(1, 1), [refused(1, codes::NOT_MEMBER)]);
    assert_eq!(node.opens(2, 2), [served(2, 2)]);
    let rate = Some(Rate { calls: 1, period: 10 * SECOND });
    let mut node = serving(Config::recommended(), StreamHandlerConfig { rate, ..StreamHandlerConfig::recommended() });
    assert_eq!(node.opens(1, 1), [served(1, 1)]);
    assert_eq!(node.opens(2, 1), [refused(2, codes::THROTTLED)]);
}

#[test]
fn a_fair_rate_of_streams_is_a_part_for_each_member() {
    let rate = Some(Rate { calls: 100, period: 1000 * SECOND });
    let config = StreamHandlerConfig { rate, fair: true, per_peer: 100, ..StreamHandlerConfig::recommended() };
    let mut node = serving(limits(|limits| limits.served_per_peer = 100), config);
    assert_eq!(node.opens(0, 1), [refused(0, codes::THROTTLED)], "there are no members");
    node.feed(In::Members((1..=10).map(|n| (peer(n), 1)).collect()));
    let opened = (1..60).filter(|stream| node.opens(*stream, 2) == [served(*stream, 2)]).count();
    assert_eq!(opened, 22, "as for calls");
}

#[test]
fn a_crowd_that_opens_all_it_may_leaves_members_their_part() {
    let handler = StreamHandlerConfig { per_peer: 4, total: 4, ..StreamHandlerConfig::recommended() };
    for (config, handler) in [
        (Config::recommended(), handler),
        (limits(|limits| (limits.served_per_peer, limits.served) = (4, 4)), StreamHandlerConfig::recommended()),
    ] {
        let mut node = serving(config, handler);
        node.feed(In::Members([(peer(2), 1)].into()));
        let is_served = |node: &mut Node, stream, from| node.opens(stream, from) == [served(stream, from)];
        let crowd = [(1, 1), (2, 1), (3, 1), (4, 3)].map(|(stream, from)| is_served(&mut node, stream, from));
        assert_eq!(crowd, [true, true, false, false], "half is kept");
        assert!(is_served(&mut node, 5, 2) && is_served(&mut node, 6, 2));
        [1, 2, 5, 6].into_iter().for_each(|stream| node.over(stream));
        assert!(node.is_clean());
    }
}

#[test]
fn headers_that_a_crowd_withholds_leave_members_their_part() {
    let mut node = serving(
        limits(|limits| (limits.pending_per_peer, limits.pending) = (4, 4)),
        StreamHandlerConfig::recommended(),
    );
    node.feed(In::Members([(peer(2), 1)].into()));
    let read = (0..4).filter(|stream| node.came(*stream, 1) == [Out::ReadHeader { stream: *stream }]).count();
    assert_eq!(read, 2, "half is kept");
    assert_eq!(node.came(4, 2), [Out::ReadHeader { stream: 4 }]);
}

#[test]
fn names_of_streams_are_taken_once_and_those_of_requests_are_apart() {
    let mut node = usual();
    let config = StreamHandlerConfig::recommended();
    node.feed(In::AddStreams { token: 1, name: "echo/1".to_owned(), config });
    node.feed(In::AddHandler { token: 2, name: "echo/1".to_owned(), config: HandlerConfig::concurrent() });
    assert_eq!(
        std::mem::take(&mut node.others),
        [
            Out::StreamsAdded { token: 1, result: Err(AddError::Taken("echo/1".to_owned())) },
            Out::HandlerAdded { token: 2, result: Ok(echo()) },
        ]
    );
    assert_eq!(node.opens(1, 1), [served(1, 1)]);
    node.feed(In::RemoveStreams(echo()));
    assert_eq!(node.opens(2, 1), [refused(2, codes::UNKNOWN_HANDLER)]);
    node.feed(In::AddStreams { token: 3, name: "echo/1".to_owned(), config });
    node.others.clear();
    node.over(1);
    assert_eq!(node.opens(3, 1), [served(3, 1)]);
    node.over(3);
    assert!(node.is_clean(), "streams of the old handler do not count for the new one");
}

#[test]
fn a_session_that_ends_takes_its_waiting_streams_along_and_an_unknown_one_has_none() {
    let mut node = usual();
    node.came(1, 1);
    node.came(2, 2);
    node.down(1);
    assert_eq!(std::mem::take(&mut node.others), [refused(1, codes::RESTARTED)]);
    assert_eq!(node.came(3, 1), [refused(3, codes::RESTARTED)]);
    assert_eq!(node.counted(Count::UnknownSession), 1);
    assert_eq!(node.begins(2, OPEN()), [served(2, 2)]);
}

#[test]
fn this_node_opens_so_many_streams_to_a_peer_and_in_all() {
    let mut node = Node::with(limits(|limits| (limits.opened_per_peer, limits.opened) = (2, 3)));
    (1..=3).for_each(|n| node.up(n));
    assert_eq!(node.open(1, 9), Err(OpenStreamError::NotConnected));
    assert_eq!(
        [(2, 1), (3, 1), (4, 1), (5, 2), (6, 3)].map(|(stream, to)| node.open(stream, to).is_ok()),
        [true, true, false, true, false]
    );
    assert_eq!(node.counted(Count::StreamBusy), 2);
    node.down(1);
    assert_eq!(node.open(7, 3), Err(OpenStreamError::Busy), "the application still has them");
    node.over(2);
    assert_eq!(node.open(7, 3), Ok(()));
    assert_eq!(node.open(7, 3), Err(OpenStreamError::Busy), "a name that is under way");
    [3, 5, 7].into_iter().for_each(|stream| node.over(stream));
    assert!(node.is_clean());
}

#[test]
fn a_handler_that_panics_now_and_then_is_not_its_askers_fault() {
    let mut node = usual();
    for _ in 0..256 {
        node.feed(In::HandlerPanicked { session: session(1) });
    }
    assert_eq!(node.reports, []);
    node.feed(In::HandlerPanicked { session: session(1) });
    assert_eq!(node.reports, [(session(1), Penalty::ControlFlood)]);
}
