//! Connections: how they open, carry and end.
//!
//! What is written goes through the sender's line, the network, the receiver's line, and waits for the receiver to read:
//! each of the four passes it on in the order in which it got it.

use std::net::SocketAddr;

use super::agenda::Instant;
use super::conns::Item;
use super::core::{Core, ONE, Pending, TURN};
use super::node::{Closed, Conn, Event, Node};

/// What a lost segment costs a stream besides a round trip.
const RETRANSMIT: Instant = 200_000_000;

impl<N: Node> Core<N> {
    pub(super) fn connect(&mut self, from: u32, to: SocketAddr) -> Conn {
        let target = self.host_at(to).map(|host| host.0);
        let latency = target.map_or(0, |to| self.latency(from, to));
        let to = target.unwrap_or(from);
        let line = |host: u32| &self.hosts[host as usize].spec;
        let limited = |sender, receiver| line(sender).up.is_some() || line(receiver).down.is_some();
        let conn = self.conns.open(from, to, latency, [limited(to, from), limited(from, to)]);
        let (now, cut) = (self.now, if self.reachable(from, to) { 0 } else { self.cuts });
        if let Some(connection) = self.conns.get(conn) {
            connection.cut = cut;
            // Nothing overtakes the three messages that open it.
            connection.last[1] = now.saturating_add(3 * latency);
        }
        self.hosts[from as usize].conns.push(conn.slot);
        self.counts.dials += 1;
        match target {
            Some(_) => self.later(now.saturating_add(latency), Pending::Syn(conn.other())),
            None => self.later(now.saturating_add(self.patience), Pending::Refused { conn, how: Closed::Unreachable }),
        }
        conn
    }

    pub(super) fn syn(&mut self, conn: Conn) {
        let dialler = conn.other();
        // Who gave up meanwhile leaves no trace.
        if self.conns.get(dialler).is_none() {
            return self.conns.leave(conn);
        }
        let Some(connection) = self.conns.get(conn) else { return };
        let (to, latency, cut) = (connection.hosts[1], connection.latency, connection.cut);
        let host = &mut self.hosts[to as usize];
        let (answer, refused) = match (host.spec.nat || cut != 0, host.alive) {
            (true, _) => (self.patience.saturating_sub(latency), Some(Closed::Unreachable)),
            (_, false) => (latency, Some(Closed::Refused)),
            _ => (latency, None),
        };
        let answer = self.now.saturating_add(answer);
        match refused {
            Some(how) => self.later(answer, Pending::Refused { conn: dialler, how }),
            None => {
                host.conns.push(conn.slot);
                self.later(answer, Pending::Opened(dialler));
                self.later(answer.saturating_add(latency), Pending::Accepted(conn));
            }
        }
    }

    pub(super) fn refused(&mut self, conn: Conn, how: Closed) -> Option<(u32, Event<N>)> {
        self.conns.leave(conn.other());
        let host = self.conns.get(conn)?.hosts[0];
        self.forget(conn);
        Some((host, Event::Closed { conn, how }))
    }

    /// Whether the connection takes another message now. If not, it says when it does.
    pub(super) fn ready(&mut self, conn: Conn) -> bool {
        let Some(connection) = self.conns.get(conn) else { return false };
        let Some(way) = connection.ways[usize::from(1 - conn.end)].as_deref_mut() else { return true };
        let ready = way.ready();
        way.told_to_wait |= !ready;
        ready
    }

    pub(super) fn write(&mut self, conn: Conn, item: Item<N::Message>) {
        let Some(connection) = self.conns.get(conn) else { return };
        let size = item.size();
        if let Item::Message(_) = item {
            self.counts.messages += 1;
            self.counts.message_bytes += size;
        }
        let (sender, receiver) = (usize::from(conn.end), usize::from(1 - conn.end));
        // Nobody is there to get it.
        if connection.is_gone(receiver) {
            return;
        }
        if !connection.limited[receiver] {
            return self.depart(conn, self.now, item, size);
        }
        let from = connection.hosts[sender];
        let way = connection.ways[receiver].get_or_insert_default();
        way.queue.push_back((item, size));
        way.queued += size;
        let in_turn = std::mem::replace(&mut way.in_turn, true);
        let host = &mut self.hosts[from as usize];
        if !in_turn {
            host.turns.push_back(conn);
        }
        if !std::mem::replace(&mut host.sending, true) {
            self.later(self.now, Pending::Turn { host: from });
        }
    }

    /// Puts something on its way that leaves the sender's host at `left`.
    fn depart(&mut self, conn: Conn, left: Instant, item: Item<N::Message>, line: u64) {
        let receiver = conn.other();
        let Some(connection) = self.conns.get(receiver) else { return };
        let latency = connection.latency;
        let mut travels = latency + self.links.jitter(&mut self.chance, latency);
        if self.chance.hits(self.links.loss) {
            self.counts.retransmissions += 1;
            travels += RETRANSMIT + 2 * latency;
        }
        let arrives = connection.follows(receiver, left.saturating_add(travels));
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.later(arrives, Pending::Arrives { conn: receiver, line, item });
    }

    /// A host's limited line carries the next part.
    pub(super) fn turn(&mut self, from: u32) {
        let host = &mut self.hosts[from as usize];
        // Datagrams may have used the line meanwhile.
        if let Err(busy) = host.line_out(self.now, 0) {
            return self.later(busy, Pending::Turn { host: from });
        }
        let Some(conn) = host.turns.pop_front() else {
            host.sending = false;
            return;
        };
        if let Some((item, part)) = self.next_part(conn) {
            let left = self.hosts[from as usize].line_out(self.now, part).unwrap_or(self.now);
            match item {
                Some(item) => self.depart(conn, left, item, part),
                None => self.depart_part(conn, left, part),
            }
        }
        let next = self.hosts[from as usize].line_out(self.now, 0).err().unwrap_or(self.now);
        self.later(next, Pending::Turn { host: from });
    }

    /// Takes the bytes of a connection's next part, and its message if it is the last.
    fn next_part(&mut self, conn: Conn) -> Option<(Option<Item<N::Message>>, u64)> {
        let connection = self.conns.get(conn.other())?;
        let from = connection.hosts[usize::from(conn.end)];
        let way = connection.ways[usize::from(1 - conn.end)].as_deref_mut()?;
        let (_, left) = way.queue.front_mut()?;
        let part = (*left).min(TURN);
        *left -= part;
        way.queued -= part;
        let whole = if *left == 0 { way.queue.pop_front() } else { None };
        way.in_turn = !way.queue.is_empty();
        let (more, writable) = (way.in_turn, way.told_to_wait && way.ready());
        if more {
            self.hosts[from as usize].turns.push_back(conn);
        }
        if writable {
            self.writable(conn);
        }
        Some((whole.map(|(item, _)| item), part))
    }

    /// What is not the last part of a message only uses the receiver's line.
    fn depart_part(&mut self, conn: Conn, left: Instant, part: u64) {
        let receiver = conn.other();
        let Some(connection) = self.conns.get(receiver) else { return };
        let to = connection.hosts[usize::from(receiver.end)];
        if self.hosts[to as usize].spec.down.is_some() {
            let arrives = connection.follows(receiver, left.saturating_add(connection.latency));
            self.later(arrives, Pending::Part { host: to, size: part as u32 });
        }
    }

    fn writable(&mut self, conn: Conn) {
        let Some(connection) = self.conns.get(conn) else { return };
        if let Some(way) = connection.ways[usize::from(1 - conn.end)].as_deref_mut() {
            way.told_to_wait = false;
        }
        self.later(self.now, Pending::Writable(conn));
    }

    /// This end is done with the connection; the other one learns of it after everything that was written.
    pub(super) fn close(&mut self, conn: Conn) {
        self.write(conn, Item::Finish);
        self.forget(conn);
    }

    /// Something has crossed the network.
    pub(super) fn arrives(&mut self, conn: Conn, line: u32, item: Item<N::Message>) -> Option<(u32, Event<N>)> {
        let connection = self.conns.get(conn)?;
        if connection.cut != 0 {
            let way = connection.ways[usize::from(conn.end)].get_or_insert_default();
            way.waiting += item.size();
            way.cut_off.push_back((item, line));
            return None;
        }
        // Most connections neither have a line to wait for nor anything that waits.
        if connection.ways[usize::from(conn.end)].is_some() || connection.limited[usize::from(conn.end)] {
            let through = self.line_in(conn, line)?;
            if through > self.now {
                self.later(through, Pending::Through { conn, item });
                return None;
            }
        }
        self.through(conn, item)
    }

    /// When the receiver's line has carried something: after all that came before.
    fn line_in(&mut self, conn: Conn, line: u32) -> Option<Instant> {
        let end = usize::from(conn.end);
        let connection = self.conns.get(conn)?;
        let mut through = self.now;
        if connection.limited[end] {
            through = self.hosts[connection.hosts[end] as usize].line_in(through, u64::from(line));
        }
        let way = connection.ways[end].get_or_insert_default();
        way.through = through.max(way.through.saturating_add(ONE));
        Some(way.through)
    }

    /// Something has come in on the receiver's line.
    pub(super) fn through(&mut self, conn: Conn, item: Item<N::Message>) -> Option<(u32, Event<N>)> {
        let end = usize::from(conn.end);
        let connection = self.conns.get(conn)?;
        let reads = self.hosts[connection.hosts[end] as usize].reading;
        let way = connection.ways[end].as_deref();
        if reads && way.is_none_or(|way| way.held.is_empty()) {
            return self.comes(conn, item);
        }
        let way = connection.ways[end].get_or_insert_default();
        way.waiting += item.size();
        way.held.push_back(item);
        None
    }

    /// The next of what was held comes.
    pub(super) fn drain(&mut self, conn: Conn) -> Option<(u32, Event<N>)> {
        let end = usize::from(conn.end);
        let connection = self.conns.get(conn)?;
        let reads = self.hosts[connection.hosts[end] as usize].reading;
        let way = connection.ways[end].as_deref_mut()?;
        let item = if reads { way.held.pop_front() } else { None };
        way.waiting -= item.as_ref().map_or(0, Item::size);
        way.draining = item.is_some() && !way.held.is_empty();
        let (draining, writable) = (way.draining, way.told_to_wait && way.ready());
        if draining {
            self.later(self.now.saturating_add(ONE), Pending::Drain(conn));
        }
        if writable {
            self.writable(conn.other());
        }
        self.comes(conn, item?)
    }

    /// An end gets what is next.
    fn comes(&mut self, conn: Conn, item: Item<N::Message>) -> Option<(u32, Event<N>)> {
        let connection = self.conns.get(conn)?;
        let here = connection.hosts[usize::from(conn.end)];
        if !connection.known[usize::from(conn.end)] {
            return None;
        }
        match item {
            Item::Finish => {
                self.forget(conn);
                Some((here, Event::Closed { conn, how: Closed::Finished }))
            }
            Item::Message(_) if self.chance.hits(self.links.corrupt) => Some((here, Event::Garbled(conn))),
            Item::Message(message) => Some((here, Event::Message { conn, message })),
        }
    }

    /// An end hears that the process at the other is gone.
    pub(super) fn reset(&mut self, conn: Conn) -> Option<(u32, Event<N>)> {
        let end = usize::from(conn.end);
        let connection = self.conns.get(conn)?;
        if connection.cut != 0 {
            connection.reset[end] = true;
            return None;
        }
        let (host, told) = (connection.hosts[end], connection.known[end] || end == 0);
        self.forget(conn);
        told.then_some((host, Event::Closed { conn, how: Closed::Reset }))
    }

    /// The end's host no longer has it.
    fn forget(&mut self, conn: Conn) {
        let Some(connection) = self.conns.get(conn) else { return };
        let host = connection.hosts[usize::from(conn.end)];
        self.conns.leave(conn);
        let conns = &mut self.hosts[host as usize].conns;
        if let Some(position) = conns.iter().position(|slot| *slot == conn.slot) {
            conns.swap_remove(position);
        }
    }

    /// All connections of a host break.
    pub(super) fn reset_all(&mut self, host: u32) {
        let crashed = &mut self.hosts[host as usize];
        let (slots, turns) = (std::mem::take(&mut crashed.conns), std::mem::take(&mut crashed.turns));
        for slot in slots {
            let Some((conn, connection)) = self.conns.at(slot) else { continue };
            let hosts = connection.hosts;
            for conn in [conn, conn.other()] {
                if hosts[usize::from(conn.end)] == host && self.conns.get(conn).is_some() {
                    self.conns.leave(conn);
                    self.reset_other(conn);
                }
            }
        }
        // What was closed, but had not all left.
        turns.into_iter().for_each(|conn| self.reset_other(conn));
    }

    fn reset_other(&mut self, conn: Conn) {
        let Some(connection) = self.conns.get(conn.other()) else { return };
        let at = self.now.saturating_add(connection.latency);
        self.later(at, Pending::Reset(conn.other()));
    }

    /// The hosts were put on sides: who is cut off from each other learns of it after the idle time, and what waited for
    /// those who no longer are goes on.
    pub(super) fn cut(&mut self) {
        self.cuts = self.cuts.checked_add(1).unwrap_or(1);
        for slot in 0..self.conns.slots() {
            let Some((conn, connection)) = self.conns.at(slot) else { continue };
            let [a, b] = connection.hosts;
            let apart = self.hosts[a as usize].side != self.hosts[b as usize].side;
            match (connection.cut, apart) {
                (0, true) => {
                    connection.cut = self.cuts;
                    for conn in [conn, conn.other()] {
                        // Keep-alives of both ends are out of step by up to half the idle time.
                        let at = self.now.saturating_add(self.idle / 2 + self.chance.below(self.idle / 2));
                        self.later(at, Pending::Silent { conn, cut: self.cuts });
                    }
                }
                (1.., false) => {
                    connection.cut = 0;
                    self.mended(conn);
                    self.mended(conn.other());
                }
                _ => {}
            }
        }
    }

    /// What was cut off from this end crosses the network.
    fn mended(&mut self, conn: Conn) {
        let end = usize::from(conn.end);
        let Some(connection) = self.conns.get(conn) else { return };
        let reset = std::mem::take(&mut connection.reset[end]);
        let crosses = connection.ways[end].as_deref_mut().map(|way| std::mem::take(&mut way.cut_off));
        for (item, line) in crosses.into_iter().flatten() {
            let Some(through) = self.line_in(conn, line) else { return };
            if let Some(way) = self.conns.get(conn).and_then(|connection| connection.ways[end].as_deref_mut()) {
                way.waiting -= item.size();
            }
            self.later(through, Pending::Through { conn, item });
        }
        let way = self.conns.get(conn).and_then(|connection| connection.ways[end].as_deref());
        let through = way.map_or(0, |way| way.through).max(self.now);
        if way.is_some_and(|way| way.told_to_wait && way.ready()) {
            self.writable(conn.other());
        }
        if reset {
            self.later(through.saturating_add(ONE), Pending::Reset(conn));
        }
    }

    /// A host reads again: what was held for it comes.
    pub(super) fn read_again(&mut self, host: u32) {
        for at in 0..self.hosts[host as usize].conns.len() {
            let slot = self.hosts[host as usize].conns[at];
            let Some((conn, connection)) = self.conns.at(slot) else { continue };
            let hosts = connection.hosts;
            for conn in [conn, conn.other()] {
                let end = usize::from(conn.end);
                let way = self.conns.get(conn).and_then(|connection| connection.ways[end].as_deref_mut());
                let way = way.filter(|way| hosts[end] == host && !way.held.is_empty() && !way.draining);
                if let Some(way) = way {
                    way.draining = true;
                    self.later(self.now, Pending::Drain(conn));
                }
            }
        }
    }
}
