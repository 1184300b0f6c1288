//! `bench`: what Sealift costs beside the tools that people use now.
//!
//! Every ratio is of runs of the same minutes on the same machine, Sealift and its peer turn about. Prints a
//! Markdown table, and below it what it is of. Measures release builds only.

mod images;
mod measure;
mod releases;
mod rows;
mod set;

use std::path::PathBuf;

use sealift_tests::Containerd;

use crate::error::Error;
use crate::servers;
use crate::shell::size;
use images::Images;
use measure::{RUNS, machine};
use set::Set;

/// What to measure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Leaves out what needs servers, and so root.
    quick: bool,
    /// A folder that `tests/bench/build-layers.sh` filled; else three small images are made.
    layers: Option<PathBuf>,
}

impl Options {
    /// Reads the words after `bench`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is one that is not known.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--quick" => options.quick = true,
                "--layers" => options.layers = Some(words.next().ok_or(Error::Usage)?.into()),
                _ => return Err(Error::Usage),
            }
        }
        Ok(options)
    }
}

/// Measures, and prints each row when it is there.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    servers::packages(&["time", "openssl", "zstd"])?;
    if !options.quick {
        servers::provide()?;
    }
    let images = match &options.layers {
        Some(layers) => Images::of_layers(layers)?,
        None => Images::small()?,
    };
    let set = Set::make(images)?;
    let mut notes = Vec::new();
    println!("\n| what | Sealift | peer | ratio | Sealift CPU | peer CPU | Sealift peak | peer peak |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    notes.push(rows::build(&set)?);
    rows::verify(&set)?;
    rows::load_dir(&set)?;
    if !options.quick {
        rows::load_containerd(&set, "2.x", Containerd::V2)?;
        rows::load_containerd(&set, "1.6", Containerd::Debian)?;
        notes.push(rows::push(&set)?);
        releases::releases(&set)?;
    }
    println!("\n{} images with {} of layers. {}", set.images.names.len(), size(set.images.bytes), notes.join(" "));
    println!(
        "{}. Median of {RUNS} runs, no warm-up run; files in the page cache, all that was written before on the disk.",
        machine()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_any_order_and_no_other_word_is() {
        let all = Options { quick: true, layers: Some("there".into()) };
        assert_eq!(Options::parse(&["--layers", "there", "--quick"]).expect("known"), all);
        assert_eq!(Options::parse(&["--quick", "--layers", "there"]).expect("known"), all);
        for words in [&["--layers"][..], &["there"], &["--slow"]] {
            assert!(matches!(Options::parse(words), Err(Error::Usage)), "{words:?}");
        }
    }
}
