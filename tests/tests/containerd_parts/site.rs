//! A running containerd as the tests of one subject use it: a namespace, images for it, a source to see through.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealift_fixtures::images::{ImageBuilder, Layer, busybox};
use sealift_format::Digest;
use sealift_importer::image::Content;
use sealift_importer::images::containerd::{Containerd, ContainerdError, LoadOptions, LoadReport};

use crate::common::{Layout, Seen, layout};

/// The namespace that containerd's CRI plugin watches.
pub(crate) const CRI: &str = "k8s.io";

/// A namespace of a running containerd, and a folder; the namespace's names go at the end.
pub(crate) struct Site {
    socket: PathBuf,
    pub(crate) namespace: String,
    pub(crate) salt: u64,
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !sealift_tests::servers() {
            return None;
        }
        let socket = std::env::var_os("SEALIFT_TEST_SOCKET").expect("set by `cargo xtask test`");
        let folder = tempfile::tempdir().expect("a folder");
        let namespace = format!("test-{test}-{}", std::process::id());
        let salt =
            u64::from_le_bytes(Digest::of(namespace.as_bytes()).as_bytes()[..8].try_into().expect("8 bytes")) >> 8;
        Some(Self { socket: socket.into(), namespace, salt, folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn connect(&self) -> Containerd {
        Containerd::connect(&self.socket, &self.namespace).await.expect("connect")
    }

    pub(crate) async fn load(&self, layout: Layout, options: &LoadOptions) -> Result<LoadReport, ContainerdError> {
        let images = layout.images();
        self.connect().await.load(&images, Arc::new(layout), options, &Seen::default()).await
    }

    /// Loads an image from a layout of its own, so that its layers are there.
    pub(crate) async fn load_base(&self, image: &ImageBuilder) {
        let path = self.path("base");
        image.build(&path).expect("build");
        self.load(layout(&path), &options("acme/shop")).await.expect("load");
    }

    /// What `ctr` prints.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        let program = std::env::var_os("SEALIFT_CTR").expect("set by `cargo xtask test`");
        let mut ctr = Command::new(program);
        ctr.arg("-a").arg(&self.socket).arg("-n").arg(&self.namespace).args(args);
        let out = ctr.output().expect("run ctr");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }

    /// What a container of the image prints.
    pub(crate) fn run(&self, image: &str, id: &str, command: &[&str]) -> String {
        let head = ["run", "--rm", "--snapshotter", "overlayfs", image, id];
        self.ctr(&[&head, command].concat())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // the kubelet's namespace may hold what is not ours
        let names = if self.namespace == CRI { String::new() } else { self.ctr(&["images", "ls", "-q"]) };
        for name in names.lines() {
            self.ctr(&["images", "rm", "--sync", name]);
        }
        assert_eq!(self.ctr(&["leases", "ls", "-q"]), "", "a lease is left");
    }
}

pub(crate) fn options(owner: &str) -> LoadOptions {
    LoadOptions::new(owner, Digest::of(owner.as_bytes()))
}

/// An image that nobody loaded before: containerd shares blobs between namespaces.
pub(crate) fn app(site: &Site, name: &str, seed: u64) -> ImageBuilder {
    let content = format!("seed {seed}\n");
    let base = busybox().expect("a static busybox");
    ImageBuilder::new(name)
        .layer(base.file("etc/namespace", site.namespace.as_str()))
        .layer(Layer::new().file("etc/app", content).random("var/data", seed + site.salt, 3 << 20))
}

/// Blobs through which a test sees, or spoils, what is read.
pub(crate) struct Watched<F> {
    layout: Layout,
    open: F,
    pub(crate) opened: AtomicU64,
}

impl<F> Watched<F> {
    pub(crate) fn new(path: &Path, open: F) -> Self {
        Self { layout: layout(path), open, opened: AtomicU64::new(0) }
    }
}

impl<F> Content for Watched<F>
where
    F: Fn(&Layout, &Digest) -> io::Result<Box<dyn Read + Send>> + Send + Sync,
{
    fn size(&self, digest: &Digest) -> Option<u64> {
        self.layout.size(digest)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        (self.open)(&self.layout, digest)
    }
}
