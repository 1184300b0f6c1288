//! The bytes that SPEC.md annotates are those of `sound.sealift`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sealift_format::envelope::DocumentKind;
use sealift_format::index::Place;
use sealift_format::keys::pae;
use sealift_format::{Digest, frame};

use crate::bundle::Parts;
use crate::{catalogue, folder};

fn specification() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPEC.md");
    fs::read_to_string(path).expect("SPEC.md is there")
}

/// A section, from its heading to the next one.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let (_, behind) = text.split_once(&format!("\n## {title}\n")).expect(title);
    behind.split("\n## ").next().expect("text")
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|behind| behind.split("```").next().expect("text")).collect()
}

fn number(text: &str) -> Option<usize> {
    text.replace([' ', ','], "").parse().ok()
}

/// An offset and what is said to be there: bytes and, if some are left out behind them, the last ones.
struct Line {
    offset: usize,
    first: Vec<u8>,
    last: Option<Vec<u8>>,
}

// Annotations begin at a column of their own, or behind more than one space where bytes go beyond it.
fn line(text: &str) -> Option<Line> {
    const ANNOTATIONS: usize = 53;
    let offset = text.split(' ').next()?.parse().ok()?;
    let mut line = Line { offset, first: Vec::new(), last: None };
    let (mut at, mut end) = (0, 0);
    for word in text.split(' ') {
        let (begin, length) = (at, word.chars().count());
        at += length + 1;
        if begin == 0 || word.is_empty() {
            continue;
        }
        if begin >= ANNOTATIONS && begin > end + 1 {
            break;
        }
        end = begin + length;
        match (word, &mut line.last) {
            ("…", last) => *last = Some(Vec::new()),
            (byte, last) => {
                let byte = u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("no byte: {byte} in {text}"));
                last.as_mut().unwrap_or(&mut line.first).push(byte);
            }
        }
    }
    Some(line)
}

/// Compares each line of a block, and says how many there are.
fn compare(block: &str, bytes: &[u8]) -> usize {
    let lines: Vec<Line> = block.lines().filter_map(line).collect();
    for (n, line) in lines.iter().enumerate() {
        let end = lines.get(n + 1).map_or(bytes.len(), |next| next.offset);
        let there = &bytes[line.offset..end];
        assert!(there.starts_with(&line.first), "at {}: {:02x?}", line.offset, &there[..line.first.len()]);
        match &line.last {
            Some(last) if line.first == [0] && last.is_empty() => {
                assert!(there.iter().all(|byte| *byte == 0), "zero bytes from {} to {end}", line.offset);
            }
            Some(last) => assert!(there.ends_with(last), "before {end}: {there:02x?}"),
            None => {}
        }
    }
    lines.len()
}

#[test]
fn the_annotated_bytes_are_those_of_the_sound_bundle() {
    let text = specification();
    let text = section(&text, "A bundle, byte by byte");
    let file = fs::read(folder().join("sound.sealift")).expect("the vector is there");
    let parts = Parts::sound();
    let manifest = parts.manifest.to_bytes();
    let [header, seal, signed, packs, index, list] = blocks(text, "text")[..] else { panic!("other blocks") };
    let seal_end = 512 + parts.seal().len();
    let segment = frame::decode(&parts.content.frames[0][0], parts.content.segment.bytes.clone()).expect("sound");
    let entry = parts.content.blobs.iter().find(|blob| blob.place == Place::List).expect("the sample has a list");
    let extents = &segment[entry.offset as usize..(entry.offset + entry.length) as usize];
    let lines = [
        compare(header, &file[..512]),
        compare(seal, &file[..seal_end]),
        compare(packs, &file),
        compare(index, &parts.raw_index()),
        compare(list, extents),
    ];
    assert_eq!(lines, [16, 27, 4, 27, 6], "each line was read");

    let [root, document] = blocks(text, "json")[..] else { panic!("other documents") };
    assert_eq!(root.replace('\n', ""), String::from_utf8_lossy(&parts.chain[0].body));
    assert_eq!(document.replace('\n', ""), String::from_utf8_lossy(&manifest));
    let identity = Digest::of(&manifest).hex();
    assert!(text.contains(&format!("`{}…{}`", &identity[..8], &identity[58..])), "{identity}");
    let signed = signed.trim_end().strip_suffix('…').expect("the rest is left out");
    assert!(pae(DocumentKind::Manifest.payload_type(), &manifest).starts_with(signed.as_bytes()), "{signed}");

    // what lies in the segment and in pack 1
    let known: BTreeSet<(usize, usize)> =
        parts.content.blobs.iter().map(|blob| (blob.offset as usize, blob.length as usize)).collect();
    let inner = packs.lines().filter(|line| line.starts_with(' ')).filter_map(|line| {
        let (offset, what) = line.trim().split_once(' ')?;
        let size = what.trim_end_matches(')').rsplit_once('(')?.1;
        Some((number(offset)?, number(size)?))
    });
    let inner: Vec<_> = inner.collect();
    assert_eq!(inner.len(), 6, "{inner:?}");
    assert!(inner.iter().all(|place| known.contains(place)), "{inner:?}");
}

#[test]
fn the_table_of_parts_is_that_of_the_sound_bundle() {
    let text = specification();
    let text = section(&text, "A bundle, byte by byte");
    let file = fs::read(folder().join("sound.sealift")).expect("the vector is there");
    let mut at = 0;
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        Some((number(cells.next()?)?, cells.next()?, cells.next()?))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 10);
    for (offset, sizes, what) in rows {
        assert_eq!(offset, at, "{what}");
        let sizes: Vec<usize> = sizes.split('+').map(|size| number(size).expect(what)).collect();
        if let [header, content, padding] = sizes[..] {
            let size = String::from_utf8_lossy(&file[at + 124..at + 135]).into_owned();
            assert_eq!(usize::from_str_radix(&size, 8), Ok(content), "{what}");
            assert!(file[at + header + content..at + header + content + padding].iter().all(|b| *b == 0), "{what}");
        }
        at += sizes.iter().sum::<usize>();
    }
    assert_eq!(at, file.len());
}

#[test]
fn each_vector_names_a_section_of_the_specification() {
    let text = specification();
    let sections: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for vector in catalogue::all() {
        assert!(sections.contains(vector.section), "{}: {}", vector.name, vector.section);
    }
}
