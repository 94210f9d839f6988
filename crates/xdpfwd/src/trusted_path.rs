//! Checks that other users can change neither a file nor a folder or symbolic link on its path.
//!
//! Each folder on the path, each symbolic link and the file itself must belong to root or to the
//! user of this process, and no other user may write to them. There are two exceptions. A folder
//! with the sticky bit, such as /tmp, may be writable by others: they can create files in it, but
//! can replace only their own. A file or folder on a read-only file system may have any mode,
//! because nobody can write to it. A read-only mount does not count: the same file system may be
//! writable at another mount, or in another mount namespace.
//!
//! The files are read before or after the check. Where other users can create and remove files, a
//! missing file or folder is an error: they may have removed it after xdpfwd read it, or may create
//! it before xdpfwd reads it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::unistd::Uid;
use rustix::io::Errno;

/// The error that another user can change a file.
#[derive(Debug)]
pub(crate) struct UntrustedPath {
    path: PathBuf,
    /// What the user can change: the file, or a folder or link on its path.
    at: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Owner(u32),
    Mode(u32),
    /// The mode lets the group root write, and an access control list may let others do so, too.
    AccessControlList(u32),
    /// The file, folder or link cannot be examined.
    Io(io::Error),
    /// The file, folder or link does not exist, and others can create it.
    Missing,
}

/// Maximum number of symbolic links on a path, as in the kernel.
const MAX_LINKS: usize = 40;

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Fails if a user other than root and the user of this process can change what `path` names. A
/// missing file is an error only if other users can create it. The caller of `sudo` is trusted,
/// too.
pub(crate) fn check(path: &Path) -> Result<(), UntrustedPath> {
    Walk { owners: trusted_owners() }.check(path)
}

fn trusted_owners() -> Vec<u32> {
    let user = Uid::effective();
    let caller = || std::env::var("SUDO_UID").ok()?.parse().ok();
    let caller = if user.is_root() { caller() } else { None };
    [0, user.as_raw()].into_iter().chain(caller).collect()
}

struct Walk {
    owners: Vec<u32>,
}

impl Walk {
    fn check(&self, path: &Path) -> Result<(), UntrustedPath> {
        self.walk(path).map_err(|(at, problem)| UntrustedPath {
            path: path.to_owned(),
            at,
            problem,
        })
    }

    fn walk(&self, path: &Path) -> Result<(), (PathBuf, Problem)> {
        let absolute =
            std::path::absolute(path).map_err(|error| (path.to_owned(), Problem::Io(error)))?;
        // The names still to follow, last first.
        let mut names = reversed_names(&absolute);
        let mut current = PathBuf::from("/");
        self.check_entry(&current, |path| fs::symlink_metadata(path))?;
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == ".." {
                current.pop();
                continue;
            }
            let next = current.join(name);
            let Some(file) = self.check_entry(&next, |path| fs::symlink_metadata(path))? else {
                return check_missing(&current, next);
            };
            if !file.is_symlink() {
                current = next;
                continue;
            }
            // This link leads to an open file of a process, as /proc/self/fd/0 does. That file may
            // have no path, so check the file itself instead of the path.
            if current.starts_with("/proc") && current.ends_with("fd") {
                self.check_entry(&next, |path| fs::metadata(path))?;
                current = next;
                continue;
            }
            links += 1;
            let error = |error| (next.clone(), Problem::Io(error));
            if links > MAX_LINKS {
                return Err(error(io::Error::other("too many symbolic links")));
            }
            let target = fs::read_link(&next).map_err(error)?;
            if target.is_absolute() {
                current = PathBuf::from("/");
            }
            names.extend(reversed_names(&target));
        }
        Ok(())
    }

    /// Checks one file, folder or link. Returns `None` if it does not exist.
    fn check_entry(
        &self,
        path: &Path,
        read: impl Fn(&Path) -> io::Result<Metadata>,
    ) -> Result<Option<Metadata>, (PathBuf, Problem)> {
        match read(path) {
            Ok(file) => match self.problem(path, &file) {
                None => Ok(Some(file)),
                Some(Problem::Mode(_) | Problem::AccessControlList(_))
                    if is_on_read_only_file_system(&file) =>
                {
                    Ok(Some(file))
                }
                Some(problem) => Err((path.to_owned(), problem)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err((path.to_owned(), Problem::Io(error))),
        }
    }

    fn problem(&self, path: &Path, file: &Metadata) -> Option<Problem> {
        let kind = file.file_type();
        // A device such as /dev/null has no content that others could change.
        if kind.is_char_device() {
            return None;
        }
        if !self.owners.contains(&file.uid()) {
            return Some(Problem::Owner(file.uid()));
        }
        let mode = file.mode();
        let is_sticky_folder = kind.is_dir() && mode & STICKY != 0;
        if kind.is_symlink() || is_sticky_folder {
            return None;
        }
        writers(path, file)
    }
}

/// Fails if other users can create `missing` in `folder`, which may be writable with the sticky
/// bit. They may also have removed the file after it was read.
fn check_missing(folder: &Path, missing: PathBuf) -> Result<(), (PathBuf, Problem)> {
    match fs::symlink_metadata(folder) {
        Ok(file) if writers(folder, &file).is_none() || is_on_read_only_file_system(&file) => {
            Ok(())
        }
        Ok(_) => Err((missing, Problem::Missing)),
        Err(error) => Err((folder.to_owned(), Problem::Io(error))),
    }
}

/// Returns a problem if users other than the owner may write to the file or folder.
fn writers(path: &Path, file: &Metadata) -> Option<Problem> {
    let mode = file.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Some(Problem::Mode(mode));
    }
    if mode & WRITABLE_BY_GROUP == 0 {
        return None;
    }
    // The members of the group root are trusted like root. With an access control list, the group
    // bits of the mode are the largest permissions of all users and groups in the list.
    if file.gid() != 0 {
        return Some(Problem::Mode(mode));
    }
    has_access_control_list(path).then_some(Problem::AccessControlList(mode))
}

/// Also returns true if unknown.
fn has_access_control_list(path: &Path) -> bool {
    let size = rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0; 0]);
    !matches!(size, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Returns whether the file is on a file system of this machine that is read-only at all mounts.
fn is_on_read_only_file_system(file: &Metadata) -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| {
        mounts.lines().any(|line| is_read_only_file_system(line, file.dev()).unwrap_or(false))
    })
}

/// Returns whether a line of mountinfo shows that the device has a read-only file system.
fn is_read_only_file_system(line: &str, device: u64) -> Option<bool> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    // The options of the file system come last, after its type and source. `mount` has the options
    // of the mount.
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    // Without a block device, others may be able to change the files elsewhere: on a server, or in
    // the layers of an overlay.
    let is_local = major(device) != 0 || kind == "tmpfs";
    let is_same = mount.split(' ').nth(2)? == format!("{}:{}", major(device), minor(device));
    Some(is_same && is_local && options.split(',').any(|option| option == "ro"))
}

fn reversed_names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect::<Vec<_>>().into_iter().rev().collect()
}

/// Names the part of the path that others can change, and the remedy.
impl fmt::Display for UntrustedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, at, problem } = self;
        write!(f, "other users can change {path:?}: ")?;
        if at == path {
            f.write_str("it")?;
        } else {
            write!(f, "{at:?}, which leads to it,")?;
        }
        match problem {
            Problem::Owner(owner) => {
                write!(f, " belongs to user {owner}; run: chown -h {} {at:?}", Uid::effective())
            }
            Problem::Mode(mode) => {
                write!(f, " is writable by others (mode {mode:04o}); run: chmod go-w {at:?}")
            }
            Problem::AccessControlList(mode) => write!(
                f,
                " has an access control list and mode {mode:04o}, so others may be able to write; \
                 run: chmod go-w {at:?}"
            ),
            Problem::Missing => f.write_str(
                " does not exist, and others can create it; create it, or use a folder to which only \
                 its owner can write",
            ),
            Problem::Io(error) => write!(f, " cannot be examined: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;
    use xdpfwd_testkit::Folder;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Creates the file `inner/file` in a new folder. Returns the folder and the path of the file.
    fn file_in_folder() -> (Folder, PathBuf) {
        let folder = Folder::new();
        let inner = folder.join("inner");
        fs::create_dir(&inner).unwrap();
        set_mode(&inner, 0o755);
        let file = inner.join("file");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o644);
        (folder, file)
    }

    fn error(path: &Path) -> String {
        check(path).unwrap_err().to_string()
    }

    #[test]
    fn file_writable_only_by_owner_is_trusted() {
        let (_folder, file) = file_in_folder();
        for mode in [0o600, 0o644, 0o444, 0o755] {
            set_mode(&file, mode);
            check(&file).unwrap();
        }
        check(&file.with_file_name("missing")).unwrap();
        check(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn writable_file_or_folder_is_rejected_with_command() {
        let (_folder, file) = file_in_folder();
        let inner = file.parent().unwrap();
        set_mode(&file, 0o646);
        let text = error(&file);
        assert!(text.ends_with(&format!("(mode 0646); run: chmod go-w {file:?}")), "{text}");
        set_mode(&file, 0o644);
        for path in [&file, &file.with_file_name("missing")] {
            set_mode(inner, 0o757);
            let text = error(path);
            assert!(text.contains(&format!("{inner:?}, which leads to it,")), "{text}");
        }
        // This is the mode of /tmp.
        set_mode(inner, 0o1777);
        check(&file).unwrap();
    }

    /// Others may have removed the file after xdpfwd read it, or may create it before xdpfwd reads
    /// it.
    #[test]
    fn missing_file_is_rejected_where_others_can_create_it() {
        let (_folder, file) = file_in_folder();
        let inner = file.parent().unwrap();
        let (missing, folder) = (inner.join("missing"), inner.join("folder"));
        let link = inner.join("link");
        symlink("missing", &link).unwrap();
        for mode in [0o1777, 0o1757] {
            set_mode(inner, mode);
            let text = error(&missing);
            assert!(text.contains("it does not exist, and others can create it; "), "{text}");
            let text = error(&folder.join("file"));
            assert!(text.contains(&format!("{folder:?}, which leads to it, does not")), "{text}");
            error(&link);
        }
        for mode in [0o755, 0o1755] {
            set_mode(inner, mode);
            for path in [&missing, &folder.join("file"), &link] {
                check(path).unwrap();
            }
        }
    }

    #[test]
    fn write_permission_of_group_is_accepted_only_for_root() {
        let (_folder, file) = file_in_folder();
        set_mode(&file, 0o664);
        if Uid::effective().is_root() {
            check(&file).unwrap();
            chown(&file, None, Some(4321)).unwrap();
        }
        assert!(error(&file).contains("mode 0664"));
    }

    #[test]
    fn write_permission_of_group_root_is_rejected_with_access_control_list() {
        if !Uid::effective().is_root() {
            return;
        }
        let (_folder, file) = file_in_folder();
        set_mode(&file, 0o664);
        // The list of `setfacl -m u:4321:rw`: tag, permissions and ID of owner, user, group, mask
        // and others.
        let entries = [
            (1u16, 6u16, u32::MAX),
            (2, 6, 4321),
            (4, 4, u32::MAX),
            (16, 6, u32::MAX),
            (32, 4, u32::MAX),
        ];
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::setxattr(&file, "system.posix_acl_access", &list, flags) {
            Err(Errno::OPNOTSUPP) => return,
            result => result.unwrap(),
        }
        let text = error(&file);
        let end = format!(
            "has an access control list and mode 0664, so others may be able to write; run: chmod \
             go-w {file:?}"
        );
        assert!(text.ends_with(&end), "{text}");
        set_mode(&file, 0o644);
        check(&file).unwrap();
    }

    #[test]
    fn file_of_other_user_is_rejected_also_in_sticky_folder() {
        if !Uid::effective().is_root() {
            return;
        }
        let (_folder, file) = file_in_folder();
        let inner = file.parent().unwrap().to_owned();
        for mode in [0o755, 0o1777] {
            set_mode(&inner, mode);
            chown(&file, Some(4321), None).unwrap();
            let text = error(&file);
            assert!(text.contains("it belongs to user 4321; run: chown -h 0 "), "{text}");
            chown(&file, Some(0), None).unwrap();
            check(&file).unwrap();
        }
        chown(&inner, Some(4321), None).unwrap();
        assert!(error(&file).contains("which leads to it, belongs to user 4321"));
        // After `sudo`, the caller is one of the trusted owners.
        Walk { owners: vec![0, 4321] }.check(&file).unwrap();
    }

    #[test]
    fn symbolic_link_is_followed_and_its_target_checked() {
        let (folder, file) = file_in_folder();
        let link = |target: &Path, name: &str| {
            let link = folder.join(name);
            symlink(target, &link).unwrap();
            link
        };
        let links = [
            link(Path::new("inner/file"), "direct"),
            link(Path::new("inner"), "folder").join("file"),
            link(Path::new("inner/../inner/./file"), "dots"),
            link(&file, "absolute"),
        ];
        links.iter().for_each(|link| check(link).unwrap());
        set_mode(&file, 0o666);
        for link in &links {
            assert!(error(link).contains("which leads to it, is writable"), "{link:?}");
        }
        assert!(error(&link(Path::new("loop"), "loop")).contains("too many symbolic links"));
    }

    #[test]
    fn open_pipe_of_this_process_is_trusted() {
        use std::os::fd::AsRawFd as _;
        let (reader, _writer) = std::io::pipe().unwrap();
        check(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd()))).unwrap();
        check(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd()))).unwrap();
        let (_folder, file) = file_in_folder();
        set_mode(&file, 0o666);
        let open = fs::File::open(&file).unwrap();
        error(Path::new(&format!("/dev/fd/{}", open.as_raw_fd())));
    }

    #[test]
    fn only_read_only_local_file_system_counts() {
        let is_read_only = |line: &str, device| is_read_only_file_system(line, device);
        let disk = nix::sys::stat::makedev(254, 1);
        for (line, device, expected) in [
            ("9 1 254:1 / /a ro,relatime - ext4 /dev/vda ro,discard", disk, Some(true)),
            ("9 1 254:1 / /a rw,relatime shared:1 - ext4 /dev/vda ro", disk, Some(true)),
            ("9 1 254:1 / /a ro,relatime - ext4 /dev/vda rw,discard", disk, Some(false)),
            ("9 1 254:1 / /a ro,relatime - ext4 /dev/vda rw,errors=ro", disk, Some(false)),
            ("9 1 254:2 / /a ro,relatime - ext4 /dev/vdb ro", disk, Some(false)),
            ("9 1 0:33 / /a ro - tmpfs none ro,size=4k", 33, Some(true)),
            ("9 1 0:33 / /a ro - nfs4 server:/a ro", 33, Some(false)),
            ("9 1 0:33 / /a ro - overlay overlay ro", 33, Some(false)),
            ("9 1 0:33 / /a ro", 33, None),
        ] {
            assert_eq!(is_read_only(line, device), expected, "{line}");
        }
    }
}
