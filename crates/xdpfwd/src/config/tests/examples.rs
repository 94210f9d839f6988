//! The files in `configs/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use engine::{Lockout, Plan};
use pipeline::Registry;

use crate::config::{Interface, Machine, load};

/// Every interface is there and has what a file takes of it.
struct Everything {
    queues: u16,
    mtu: u32,
}

impl Machine for Everything {
    fn cores(&self) -> Vec<usize> {
        (0..8).collect()
    }

    fn interface(&self, name: &str) -> Option<Interface> {
        let index = name.bytes().fold(0, |index, byte| index * 31 + u32::from(byte));
        Some(Interface { index, queues: Some(self.queues), mtu: Some(self.mtu), driver: None, state: None })
    }

    fn lockouts(&self, _: &Plan) -> io::Result<Vec<Lockout>> {
        Ok(Vec::new())
    }

    fn interfaces(&self) -> Vec<String> {
        Vec::new()
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_file_is_fine() {
    let files = files();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with(".toml"), "{name}");
        let queues = if name == "two-workers.toml" { 2 } else { 1 };
        let (_, warnings) = load(&file, &Registry::builtin(), &Everything { queues, mtu: 1500 }).unwrap();
        assert_eq!(warnings.to_string(), "", "{name}");
    }
}

#[test]
fn only_jumbo_takes_jumbo_frames() {
    for file in files() {
        let jumbo = file.file_name().unwrap() == "jumbo.toml";
        let machine = Everything { queues: 2, mtu: 3818 };
        assert_eq!(load(&file, &Registry::builtin(), &machine).is_ok(), jumbo, "{file:?}");
    }
}

#[test]
fn the_demo_is_what_the_lab_sets_up() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
    let (plan, _) = load(&demo, &Registry::builtin(), &Everything { queues: 1, mtu: 1500 }).unwrap();
    let interfaces: Vec<_> = plan.ports.iter().map(|port| (port.interface.as_str(), port.queues)).collect();
    assert_eq!(interfaces, [("fwd0", 1), ("fwd1", 1)]);
    assert_eq!(plan.workers, [Some(1)]);
    let paths: Vec<_> = plan.paths.iter().map(|path| (path.from.0, path.to.0, path.stages.len())).collect();
    assert_eq!(paths, [(0, 1, 1), (1, 0, 1)]);
}
