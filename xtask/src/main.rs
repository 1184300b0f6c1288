//! `cargo xtask`: set-up and runs that need more than cargo.
//!
//! It provides what a build needs (protoc) and what tests need (servers), and runs the two programs as
//! children. It depends on no generated code, because it has to run where nothing is installed yet.

mod bench;
mod demo;
mod dist;
mod error;
mod protoc;
mod servers;
mod shell;
mod sweep;
mod test;

use std::process::ExitCode;

use error::Error;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--cluster]   show what Sealift does: a vendor packs, a customer verifies and loads
                     --cluster: down to running pods, in a real Kubernetes (root; builds what is missing)
  test [--quick]     every test; --quick leaves out those that need servers, and so root
  sweep              kill the importer at every step of its runs, with both Helms, and count what is lost
                     (root; the better part of an hour)
  bench [--quick] [--layers DIR]
                     figures against the usual tools; --quick leaves out those that need servers
                     --layers: on real software, in layers that tests/bench/build-layers.sh made
  dist [--debian11]  static programs in target/dist; --debian11 also tries them on Debian 11 (root)
  servers            install or build what the server tests need: Debian packages, Kubernetes, Helm
  protoc             print the path of the protoc that builds use
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => demo::run(),
        ["demo", "--cluster"] => demo::run_in_cluster(),
        ["test"] => test::run(false),
        ["test", "--quick"] => test::run(true),
        ["sweep"] => sweep::run(),
        ["bench", options @ ..] => bench::Options::parse(options).and_then(|options| bench::run(&options)),
        ["dist"] => dist::run(false),
        ["dist", "--debian11"] => dist::run(true),
        ["servers"] => servers::provide(),
        ["protoc"] => protoc::path().map(|path| println!("{}", path.display())),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(Error::Usage),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Usage) => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
