//! The files in `configs/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xdpfwd_engine::{Lockouts, Plan};

use super::KeyFolder;
use crate::config::{FilePolicy, Interface, Machine, load};

/// A machine on which every interface exists, with this number of queues and this MTU.
struct PermissiveMachine {
    queues: u16,
    mtu: u32,
}

impl Machine for PermissiveMachine {
    fn cores(&self) -> Vec<usize> {
        (0..8).collect()
    }

    fn interface(&self, name: &str) -> Option<Interface> {
        // Each name needs its own index.
        let index = name.bytes().fold(0, |index, byte| index * 31 + u32::from(byte));
        Some(Interface {
            index,
            queues: Some(self.queues),
            mtu: Some(self.mtu),
            ..Interface::default()
        })
    }

    fn lockouts(&self, _: &Plan) -> io::Result<Lockouts> {
        Ok(Lockouts::default())
    }

    fn interfaces(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Copies of `configs/` in a temporary folder, with the key files that they name.
struct ExampleFiles {
    folder: KeyFolder,
    files: Vec<PathBuf>,
}

impl ExampleFiles {
    fn new() -> Self {
        let folder = KeyFolder::new();
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let copy = |entry: io::Result<fs::DirEntry>| {
            let file = entry.unwrap().path();
            let copied = folder.join(file.file_name().unwrap());
            fs::copy(&file, &copied).unwrap();
            copied
        };
        let mut files: Vec<_> = fs::read_dir(configs).unwrap().map(copy).collect();
        files.sort();
        fs::write(folder.join("esp.state"), "").unwrap();
        Self { folder, files }
    }
}

#[test]
fn example_files_are_valid_without_warnings() {
    let ExampleFiles { folder: _folder, files } = ExampleFiles::new();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with(".toml"), "{name}");
        let queues = if name == "two-workers.toml" { 2 } else { 1 };
        let (_, warnings) = load(
            &file,
            &xdpfwd_stages::builtin(),
            &PermissiveMachine { queues, mtu: 1500 },
            FilePolicy::Accept,
        )
        .unwrap();
        assert_eq!(warnings.to_string(), "", "{name}");
    }
}

#[test]
fn only_jumbo_example_accepts_mtu_3818() {
    // 3818 is the largest MTU for frames of 4096 bytes. The other examples have frames of 2048
    // bytes.
    let ExampleFiles { folder: _folder, files } = ExampleFiles::new();
    for file in files {
        let is_jumbo = file.file_name().unwrap() == "jumbo.toml";
        let machine = PermissiveMachine { queues: 2, mtu: 3818 };
        assert_eq!(
            load(&file, &xdpfwd_stages::builtin(), &machine, FilePolicy::Accept).is_ok(),
            is_jumbo,
            "{file:?}"
        );
    }
}

#[test]
fn demo_example_matches_the_lab() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
    let (plan, _) = load(
        &demo,
        &xdpfwd_stages::builtin(),
        &PermissiveMachine { queues: 1, mtu: 1500 },
        FilePolicy::Accept,
    )
    .unwrap();
    let interfaces: Vec<_> =
        plan.ports.iter().map(|port| (port.interface.as_str(), port.queues)).collect();
    assert_eq!(interfaces, [("fwd0", 1), ("fwd1", 1)]);
    assert_eq!(plan.workers, [Some(1)]);
    let paths: Vec<_> =
        plan.paths.iter().map(|path| (path.from.0, path.to.0, path.stages.len())).collect();
    assert_eq!(paths, [(0, 1, 1), (1, 0, 1)]);
}
