//! Bytes to lines, pure. A line that would not fit into 8 KiB on the way out (what log shippers take, escapes and
//! envelope included) goes out in numbered parts, so that a reader can join it again and our memory stays bounded.

use std::borrow::Cow;

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
    parts: u32,
}

impl Splitter {
    /// Takes bytes as they come and hands on every line or part that is complete.
    pub fn feed(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() && self.parts == 0 && line.len() * 6 <= ROOM {
                emit(Piece { text: text(line), part: None, more: false });
            } else {
                self.append(line, emit);
                self.finish_line(emit);
            }
        }
        self.append(rest, emit);
    }

    /// The end of the stream, or of the process: what is left counts as a line.
    pub fn finish(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() || self.parts > 0 {
            self.finish_line(emit);
        }
    }

    fn append(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece<'_>)) {
        for chunk in bytes.chunks(ROOM) {
            self.partial.extend_from_slice(chunk);
            while let Some(cut) = cut(&self.partial) {
                self.parts += 1;
                let part = self.partial.get(..cut).unwrap_or_default();
                emit(Piece { text: text(part), part: Some(self.parts), more: true });
                self.partial.drain(..cut);
            }
        }
    }

    fn finish_line(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        let part = (self.parts > 0).then(|| self.parts + 1);
        emit(Piece { text: text(&self.partial), part, more: false });
        self.partial.clear();
        self.partial.shrink_to(1_024);
        self.parts = 0;
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

/// Where to cut, when it is too long; never within a character.
fn cut(bytes: &[u8]) -> Option<usize> {
    if bytes.len() * 6 <= ROOM {
        return None;
    }
    let mut cost = 0;
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        cost += match byte {
            b'"' | b'\\' => 2,
            0..=0x1f | 0x7f => 6,
            0x20..=0x7e => 1,
            // An invalid byte becomes a replacement of three.
            0x80..=0xff => 3,
        };
        if cost > ROOM {
            at = i;
            break;
        }
    }
    if at == 0 {
        return None;
    }
    let boundary = (0..4).find(|back| bytes.get(at - back).is_none_or(|b| b & 0xc0 != 0x80)).unwrap_or(0);
    Some(at - boundary)
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

    proptest! {
        #[test]
        fn no_text_is_lost_and_no_part_is_too_long(text in "[a-zé€\u{1}\"]{0,3000}", pieces in 1usize..7, times in 1usize..8) {
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
