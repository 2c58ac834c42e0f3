//! DNS queries, and answers as far as they are needed here (RFC 1035, 4): TXT, A and AAAA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an answer over UDP that are asked for (RFC 6891); DNS flag day 2020: fits every path unfragmented.
pub(super) const MAX_UDP: usize = 1_232;
/// Records of an answer that are read.
const MAX_RECORDS: usize = 64;
/// Bytes of the longest text that is put together; an entry of a list has fewer.
const MAX_TEXT: usize = 1_024;
const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A = 1,
    Txt = 16,
    Aaaa = 28,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) texts: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// Not an answer to this question: it may be forged, and the true one may come.
    #[error("not an answer to what was asked")]
    Stray,
    #[error("the answer did not fit a datagram")]
    Truncated,
    #[error("the name server refused or failed, with code {0}")]
    Failed(u8),
    #[error("the name server's answer is malformed")]
    Malformed,
}

/// A query for a name of valid labels, which the callers' types see to.
pub(super) fn query(id: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + name.len() + 32);
    bytes.extend(id.to_be_bytes());
    // Recursion desired; one question, one additional record.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    question(&mut bytes, name, kind);
    // The size of answers that are taken, as the class of an OPT record of the root.
    bytes.push(0);
    bytes.extend(TYPE_OPT.to_be_bytes());
    bytes.extend((MAX_UDP as u16).to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

fn question(bytes: &mut Vec<u8>, name: &str, kind: Kind) {
    for label in name.split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Problem::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Problem> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Passes over a name. Where a pointer in it leads does not matter.
    fn skip_name(&mut self) -> Result<(), Problem> {
        loop {
            match self.byte()? {
                0 => return Ok(()),
                len if len < 64 => drop(self.take(len.into())?),
                pointer if pointer >= 192 => return self.byte().map(drop),
                _ => return Err(Problem::Malformed),
            }
        }
    }
}

/// Reads an answer to a [`query`].
pub(super) fn parse(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Result<Answer, Problem> {
    let mut reader = Reader(bytes);
    let header = reader.take(HEADER).map_err(|_| Problem::Stray)?;
    let mut asked = Vec::new();
    question(&mut asked, name, kind);
    let is_answer = header[0..2] == id.to_be_bytes() && header[2] & 0xf8 == 0x80 && header[4..6] == [0, 1];
    let echoed = reader.take(asked.len()).map_err(|_| Problem::Stray)?;
    // Labels' lengths are below 64, so no length is taken for a letter here.
    if !is_answer || !echoed.eq_ignore_ascii_case(&asked) {
        return Err(Problem::Stray);
    }
    if header[2] & 2 != 0 {
        return Err(Problem::Truncated);
    }
    match header[3] & 15 {
        0 => {}
        code => return Err(Problem::Failed(code)),
    }
    let count = u16::from_be_bytes([header[6], header[7]]);
    let mut answer = Answer::default();
    for _ in 0..usize::from(count).min(MAX_RECORDS) {
        reader.skip_name()?;
        let (found, class) = (reader.u16()?, reader.u16()?);
        reader.take(4)?;
        let length = reader.u16()?;
        let data = reader.take(length.into())?;
        // Aliases (CNAME) lie before the records of the name that they lead to, and are of no interest.
        if class != CLASS_IN || found != kind as u16 {
            continue;
        }
        match kind {
            Kind::Txt => answer.texts.extend(text(data)?),
            Kind::A => {
                let ip: [u8; 4] = data.try_into().map_err(|_| Problem::Malformed)?;
                answer.ips.push(Ipv4Addr::from(ip).into());
            }
            Kind::Aaaa => {
                let ip: [u8; 16] = data.try_into().map_err(|_| Problem::Malformed)?;
                answer.ips.push(Ipv6Addr::from(ip).into());
            }
        }
    }
    Ok(answer)
}

/// The strings of a TXT record as one text; `None` for what is no text of ours: not UTF-8, or too long.
fn text(data: &[u8]) -> Result<Option<String>, Problem> {
    let mut reader = Reader(data);
    let mut bytes = Vec::new();
    while !reader.0.is_empty() {
        let len = reader.byte()?;
        bytes.extend(reader.take(len.into())?);
        if bytes.len() > MAX_TEXT {
            return Ok(None);
        }
    }
    Ok(String::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "a.example";

    /// An answer as name servers write it: names as pointers to the question.
    fn answer(id: u16, kind: Kind, flags: [u8; 2], records: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend(flags);
        bytes.extend([0, 1]);
        bytes.extend((records.len() as u16).to_be_bytes());
        bytes.extend([0; 4]);
        question(&mut bytes, "A.EXAMPLE", kind);
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    const OK: [u8; 2] = [0x81, 0x80];

    #[test]
    fn a_query_is_these_bytes() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x07example\x00\x00\x10\x00\x01\
            \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(query(0x1234, NAME, Kind::Txt), expected);
    }

    #[test]
    fn texts_are_put_together_and_aliases_passed_over() {
        let records = [(5, vec![1, b'b', 0]), (16, b"\x05hello\x06 world".to_vec()), (16, b"\x01x".to_vec())];
        let parsed = parse(&answer(7, Kind::Txt, OK, &records), 7, NAME, Kind::Txt).expect("an answer");
        assert_eq!(parsed.texts, ["hello world", "x"]);
        let records = [(1, vec![192, 0, 2, 1])];
        let parsed = parse(&answer(7, Kind::A, OK, &records), 7, NAME, Kind::A).expect("an answer");
        assert_eq!(parsed.ips, [IpAddr::from([192, 0, 2, 1])]);
        let records = [(28, vec![0; 16])];
        let parsed = parse(&answer(7, Kind::Aaaa, OK, &records), 7, NAME, Kind::Aaaa).expect("an answer");
        assert_eq!(parsed.ips, [IpAddr::from([0u8; 16])]);
    }

    #[test]
    fn what_answers_another_question_is_stray() {
        let good = answer(7, Kind::Txt, OK, &[]);
        assert_eq!(parse(&good, 7, NAME, Kind::Txt), Ok(Answer::default()));
        for (id, name, kind) in [(8, NAME, Kind::Txt), (7, "b.example", Kind::Txt), (7, NAME, Kind::A)] {
            assert_eq!(parse(&good, id, name, kind), Err(Problem::Stray));
        }
        assert_eq!(parse(&query(7, NAME, Kind::Txt), 7, NAME, Kind::Txt), Err(Problem::Stray), "a query is none");
        assert_eq!(parse(b"", 7, NAME, Kind::Txt), Err(Problem::Stray));
    }

    #[test]
    fn refusals_and_cuts_are_told_apart() {
        let parsed = |flags| parse(&answer(7, Kind::Txt, flags, &[]), 7, NAME, Kind::Txt);
        assert_eq!(parsed([0x83, 0x80]), Err(Problem::Truncated));
        assert_eq!(parsed([0x81, 0x83]), Err(Problem::Failed(3)));
    }

    #[test]
    fn claimed_counts_and_lengths_are_not_believed() {
        let mut many = answer(7, Kind::Txt, OK, &[]);
        many[6..8].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&many, 7, NAME, Kind::Txt), Err(Problem::Malformed));
        let overlong = answer(7, Kind::Txt, OK, &[(16, b"\xffhello".to_vec())]);
        assert_eq!(parse(&overlong, 7, NAME, Kind::Txt), Err(Problem::Malformed));
        let mut huge = Vec::new();
        (0..20).for_each(|_| huge.extend([&[255][..], &[b'x'; 255]].concat()));
        let records = vec![(16, huge), (16, b"\x02\xff\xfe".to_vec()), (16, b"\x01x".to_vec())];
        let parsed = parse(&answer(7, Kind::Txt, OK, &records), 7, NAME, Kind::Txt).expect("an answer");
        assert_eq!(parsed.texts, ["x"], "too long, and no text");
        let records = vec![(16, b"\x01x".to_vec()); 500];
        let parsed = parse(&answer(7, Kind::Txt, OK, &records), 7, NAME, Kind::Txt).expect("an answer");
        assert_eq!(parsed.texts.len(), MAX_RECORDS);
    }

    proptest! {
        #[test]
        fn damaged_answers_never_panic(position in 0usize..80, to: u8, cut in 0usize..80) {
            let mut bytes = answer(7, Kind::Txt, OK, &[(16, b"\x05hello\x06 world".to_vec()), (5, vec![0])]);
            let position = position % bytes.len();
            bytes[position] = to;
            let _ = parse(&bytes, 7, NAME, Kind::Txt);
            bytes.truncate(cut);
            let _ = parse(&bytes, 7, NAME, Kind::Txt);
        }
    }
}
