//! Bytes to lines, pure. A line that would not fit into 8 KiB on the way out (what log shippers take, escapes and
//! envelope included) goes out in numbered parts, so that a reader can join it again and our memory stays bounded.

use std::borrow::Cow;
use std::io::BufRead;

/// What the text of one part may take when escaped; the rest of 8 KiB is for the envelope.
const ROOM: usize = 8_192 - 384;

/// A line or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without its newline; what is not UTF-8 is replaced.
    pub text: Cow<'a, str>,
    /// `None`: a whole line. Else counted from 1.
    pub part: Option<u32>,
    /// Whether more parts of this line follow.
    pub more: bool,
}

/// Keeps what is not yet a line.
#[derive(Debug, Default)]
pub struct Splitter {
    partial: Vec<u8>,
    /// What it takes when escaped; kept, so that a line that comes byte by byte is not counted again for each.
    cost: usize,
    parts: u32,
}

impl Splitter {
    /// Takes bytes as they come and hands on every line or part that is complete.
    pub fn feed(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut after = rest;
            // Looks at many bytes at once, which a search of our own would not.
            let taken = after.skip_until(b'\n').unwrap_or(rest.len());
            let found = rest.get(..taken).unwrap_or_default();
            rest = after;
            let Some(line) = found.strip_suffix(b"\n") else { return self.append(found, emit) };
            let fits = line.len() * 6 <= ROOM || (line.len() <= ROOM && cost(line) <= ROOM);
            if fits && self.partial.is_empty() && self.parts == 0 {
                emit(Piece { text: text(ending(line)), part: None, more: false });
            } else {
                self.append(line, emit);
                self.finish_line(emit);
            }
        }
    }

    /// The end of the stream, or of the process: what is left counts as a line.
    pub fn finish(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() || self.parts > 0 {
            self.finish_line(emit);
        }
    }

    fn append(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // No byte takes less than one.
            let head = rest.get(..ROOM).unwrap_or(rest);
            let mut taken = head.len();
            if self.cost + cost(head) > ROOM {
                let mut sum = self.cost;
                let fits = |byte: &&u8| {
                    sum += usize::from(price(**byte));
                    sum <= ROOM
                };
                taken = head.iter().take_while(fits).count();
            }
            let (now, later) = rest.split_at(taken);
            self.partial.extend_from_slice(now);
            self.cost += cost(now);
            rest = later;
            if taken < head.len() {
                self.finish_part(emit);
            }
        }
    }

    /// Hands on what there is of a longer line, but for the beginning of a character that is not all there.
    fn finish_part(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        let cut = self.partial.len() - unfinished(&self.partial);
        self.parts += 1;
        let part = self.partial.get(..cut).unwrap_or_default();
        emit(Piece { text: text(part), part: Some(self.parts), more: true });
        self.partial.drain(..cut);
        self.cost = cost(&self.partial);
    }

    fn finish_line(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        let part = (self.parts > 0).then(|| self.parts + 1);
        emit(Piece { text: text(ending(&self.partial)), part, more: false });
        self.partial.clear();
        self.partial.shrink_to(1_024);
        self.cost = 0;
        self.parts = 0;
    }
}

/// The line without the other half of a foreign newline.
fn ending(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly always it is text, and finding that out costs a third of looking for what is not.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// What a byte takes when escaped.
fn price(byte: u8) -> u8 {
    let control = u8::from(byte < 0x20) | u8::from(byte == 0x7f);
    let quoted = u8::from(byte == b'"') | u8::from(byte == b'\\');
    // An invalid byte becomes a replacement of three.
    1 + 5 * control + quoted + 2 * u8::from(byte >= 0x80)
}

fn cost(bytes: &[u8]) -> usize {
    // So few that their sum fits into a byte, which lets many be looked at at once.
    let sum = |few: &[u8]| few.iter().fold(0_u8, |sum, byte| sum.wrapping_add(price(*byte)));
    bytes.chunks(32).map(|few| usize::from(sum(few))).sum()
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let lead = bytes.iter().rev().take(3).position(|byte| *byte >= 0xc0);
    let Some(back) = lead.map(|at| at + 1) else { return 0 };
    let whole = match bytes.get(bytes.len() - back) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        _ => 2,
    };
    if back < whole { back } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(String, Option<u32>, bool)> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        let mut emit = |p: Piece<'_>| out.push((p.text.into_owned(), p.part, p.more));
        for chunk in chunks {
            splitter.feed(chunk, &mut emit);
        }
        splitter.finish(&mut emit);
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_were_written() {
        let whole = |s: &str| (s.to_owned(), None, false);
        assert_eq!(
            split(&[b"a\nb", b"c\r\n", b"\n", b"d"]),
            [whole("a"), whole("bc"), whole(""), whole("d")]
        );
    }

    #[test]
    fn a_megabyte_is_joined_again_by_its_parts() {
        let long = "x".repeat(1_000_000);
        let out = split(&[long.as_bytes(), b"\nshort\n"]);
        let (parts, last) = out.split_at(out.len() - 1);
        assert_eq!(last[0], ("short".to_owned(), None, false));
        assert!(parts.len() > 100);
        assert_eq!(parts.iter().map(|p| p.0.as_str()).collect::<String>(), long);
        for (i, (text, part, more)) in parts.iter().enumerate() {
            assert_eq!(*part, Some(u32::try_from(i).unwrap() + 1));
            assert_eq!(*more, i + 1 < parts.len());
            assert!(text.len() <= ROOM);
        }
    }

    #[test]
    fn a_carriage_return_goes_only_before_a_newline() {
        let whole = |s: &str| (s.to_owned(), None, false);
        assert_eq!(split(&[b"a\rb\r\n\r\n\0\n"]), [whole("a\rb"), whole(""), whole("\0")]);
        let long = "\r".repeat(ROOM);
        let out = split(&[long.as_bytes(), b"x\n"]);
        assert_eq!(out.iter().map(|p| p.0.as_str()).collect::<String>(), long + "x");
    }

    #[test]
    fn a_character_is_not_cut_and_what_is_none_is_replaced() {
        for shift in 0..4 {
            let long = "x".repeat(shift) + &"€".repeat(ROOM);
            let out = split(&[long.as_bytes()]);
            assert_eq!(out.iter().map(|p| p.0.as_str()).collect::<String>(), long);
            let broken = vec![0xe2; ROOM + shift];
            let out = split(&[&broken]);
            let replaced: usize = out.iter().map(|p| p.0.chars().filter(|c| *c == '\u{fffd}').count()).sum();
            assert_eq!(replaced, broken.len());
        }
    }

    #[test]
    fn a_line_that_just_fits_is_whole() {
        let whole = "x".repeat(ROOM);
        assert_eq!(split(&[whole.as_bytes(), b"\n"]), [(whole.clone(), None, false)]);
        assert_eq!(split(&[&[whole.as_bytes(), b"\n"].concat()]), [(whole.clone(), None, false)]);
        assert_eq!(split(&[whole.as_bytes(), b"y\n"]).len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_is_lost_and_no_part_is_too_long(text in "[a-zé€𝄞\u{1}\r\"]{0,3000}z", pieces in 1usize..7, times in 1usize..8) {
            let text = text.repeat(times);
            let size = (text.len() / pieces).max(1);
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let out = split(&chunks);
            prop_assert_eq!(out.iter().map(|p| p.0.as_str()).collect::<String>(), text);
            for (text, _, _) in out {
                prop_assert!(serde_json::to_string(&text).unwrap().len() <= ROOM + 16);
            }
        }
    }
}
