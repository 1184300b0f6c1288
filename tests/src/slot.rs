//! At most so many clusters at once on this machine, each with names and ports of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::paths::cluster_script;
use crate::run;

/// One place for the machine, whatever the cache: bridges, ports and cgroups are the machine's too.
const PLACE: &str = "/run/sealift-tests/slots";
/// A cluster takes about 0.7 GB; more than this would only wait for the processor.
const SLOTS: u16 = 3;
/// Below the ports that Linux gives out by itself.
const FIRST_PORT: u16 = 16400;
const PORTS: u16 = 20;

/// The right to run one cluster; given back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Slot {
    file: File,
    /// Name of bridges and cgroups.
    pub(crate) name: String,
    /// First of 20 ports.
    pub(crate) port: u16,
    /// First two numbers of the pods' addresses.
    pub(crate) net: String,
}

impl Slot {
    /// Waits until one is free. What a killed test left behind in it is stopped first.
    pub(crate) fn take() -> Self {
        let dir = Path::new(PLACE);
        fs::create_dir_all(dir).expect("root can write in /run");
        loop {
            if let Some(slot) = (0..SLOTS).find_map(|number| Self::try_take(dir, number)) {
                return slot;
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn try_take(dir: &Path, number: u16) -> Option<Self> {
        let path = dir.join(number.to_string());
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.as_mut().expect("root can write in /run");
        file.try_lock().ok()?;
        let mut left = String::new();
        let _ = file.read_to_string(&mut left);
        let left = PathBuf::from(left);
        if left.join("env").is_file() {
            let _ = run(cluster_script(), ["stop".as_ref(), left.as_os_str()]);
            let _ = fs::remove_dir_all(&left);
        }
        let port = FIRST_PORT + number * PORTS;
        let free = (port..port + PORTS).all(|p| TcpListener::bind(("127.0.0.1", p)).is_ok());
        let file = file.try_clone().expect("a file can be cloned");
        free.then(|| Self { file, name: format!("slt{number}n"), port, net: format!("10.{}", 210 + number) })
    }

    /// Writes down where the cluster lies, for whoever has to clean up.
    pub(crate) fn belongs_to(&mut self, dir: &Path) {
        let done = self.file.set_len(0).and_then(|()| self.file.rewind());
        done.and_then(|()| self.file.write_all(dir.as_os_str().as_encoded_bytes())).expect("root can write in /run");
    }
}
