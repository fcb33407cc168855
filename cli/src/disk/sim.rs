//! A disk in memory that forgets, as POSIX allows, whatever was not synced.
//!
//! Programs see the *visible* state. [`SimDisk::survivors`] lists every state that a power cut at this
//! moment may leave: each change of a name since the last sync of its folder took place or did not,
//! and of an unsynced file there is any prefix, or zeros, or blocks out of order. [`SimDisk::fail`]
//! cuts the power before a chosen operation, or has it fail once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, above};

/// Changes of names that may be unsynced at once: each doubles the number of survivors.
const UNSYNCED_NAMES_MAX: usize = 12;
/// The mode of a file that [`Disk::create`] makes.
const FILE_MODE: u32 = 0o600;

/// What has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file: its mode and its bytes.
    File(u32, Vec<u8>),
}

/// All that is on a disk, by path.
pub type Image = BTreeMap<PathBuf, Content>;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: this operation does not take place, and none after it.
    Cut,
    /// This operation fails, with this error of the system; of an append the first half is there.
    Error(i32),
}

/// How densely torn files are enumerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tears {
    /// At every byte.
    Every,
    /// At the first, the middle and the last byte.
    Few,
}

/// The simulated disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    visible: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<Change>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    off: bool,
}

/// What a name stands for: a folder, or a file by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// Names of one folder that change together.
#[derive(Debug, Clone)]
struct Change {
    folder: PathBuf,
    names: Vec<(PathBuf, Option<Node>)>,
}

#[derive(Debug, Default)]
struct File {
    mode: u32,
    visible: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
    /// A sync has failed: what was written until then never becomes durable for sure.
    lost: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Append(Vec<u8>),
    Truncate(usize),
}

impl SimDisk {
    /// A disk with that on it, all of it durable.
    pub fn with(image: &Image) -> SimDisk {
        let mut state = State::default();
        for (path, content) in image {
            let node = match content {
                Content::Folder => Node::Folder,
                Content::File(mode, bytes) => state.add(File {
                    mode: *mode,
                    visible: bytes.clone(),
                    durable: bytes.clone(),
                    ..File::default()
                }),
            };
            state.visible.insert(path.clone(), node);
        }
        state.durable = state.visible.clone();
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// A disk with these folders on it, each with those above it.
    pub fn with_folders(folders: &[&Path]) -> SimDisk {
        let all = folders.iter().flat_map(|folder| folder.ancestors());
        Self::with(&all.map(|path| (path.into(), Content::Folder)).collect())
    }

    /// Has the operation of that number, counted from zero since the disk was made, go wrong.
    pub fn fail(&self, operation: usize, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    /// How many operations that change something were asked for.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Everything programs see.
    pub fn visible(&self) -> Image {
        let state = self.state();
        let content = |node: &Node| match node {
            Node::Folder => Content::Folder,
            Node::File(number) => Content::File(
                state.files[*number].mode,
                state.files[*number].visible.clone(),
            ),
        };
        let visible = state.visible.iter();
        visible
            .map(|(path, node)| (path.clone(), content(node)))
            .collect()
    }

    /// Every state of the disk that a cut of the power at this moment may leave.
    ///
    /// # Panics
    /// If more names are unsynced than can be enumerated.
    pub fn survivors(&self, tears: Tears) -> BTreeSet<Image> {
        let state = self.state();
        assert!(state.unsynced.len() <= UNSYNCED_NAMES_MAX, "too many names");
        let subsets = 0..1_u32 << state.unsynced.len();
        subsets
            .flat_map(|subset| state.images(&state.names(subset), tears))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, file: File) -> Node {
        self.files.push(file);
        Node::File(self.files.len() - 1)
    }

    /// One more operation; an error if it is the one that fails or comes after the cut.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            _ if self.off => Err(power_is_off()),
            Some((at, Fault::Cut)) if at == number => {
                self.off = true;
                Err(power_is_off())
            }
            Some((at, Fault::Error(code))) if at == number => {
                Err(io::Error::from_raw_os_error(code))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, folder: &Path, names: Vec<(PathBuf, Option<Node>)>) {
        apply(&mut self.visible, &names);
        let folder = folder.into();
        self.unsynced.push(Change { folder, names });
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.visible.get(path) {
            Some(Node::File(number)) => Ok(*number),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn folder_above<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        match self.visible.get(above(path)) {
            Some(Node::Folder) => Ok(above(path)),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What has a name if just these unsynced changes took place.
    fn names(&self, subset: u32) -> BTreeMap<PathBuf, Node> {
        let mut names = self.durable.clone();
        for (bit, change) in self.unsynced.iter().enumerate() {
            if subset & (1 << bit) != 0 {
                apply(&mut names, &change.names);
            }
        }
        let folders: BTreeSet<PathBuf> = names
            .iter()
            .filter(|(_, node)| **node == Node::Folder)
            .map(|(path, _)| path.clone())
            .collect();
        let found = |path: &PathBuf| {
            path.ancestors()
                .skip(1)
                .all(|above| folders.contains(above))
        };
        names.retain(|path, _| found(path));
        names
    }

    /// The images of these names, for everything that may have become of each file.
    fn images(&self, names: &BTreeMap<PathBuf, Node>, tears: Tears) -> Vec<Image> {
        let mut images = vec![Image::new()];
        for (path, node) in names {
            let contents: Vec<Content> = match node {
                Node::Folder => vec![Content::Folder],
                Node::File(number) => self.files[*number].remains(tears),
            };
            let with = |image: &Image, content: &Content| {
                let mut image = image.clone();
                image.insert(path.clone(), content.clone());
                image
            };
            images = images
                .iter()
                .flat_map(|image| contents.iter().map(|content| with(image, content)))
                .collect();
        }
        images
    }
}

impl File {
    /// Everything that may be left of it.
    fn remains(&self, tears: Tears) -> Vec<Content> {
        let mut bytes = self.durable.clone();
        let mut all = BTreeSet::from([bytes.clone()]);
        for write in &self.unsynced {
            match write {
                Write::Truncate(len) => bytes.truncate(*len),
                Write::Append(added) => {
                    all.extend(torn(&bytes, added, tears));
                    bytes.extend(added);
                }
            }
            all.insert(bytes.clone());
        }
        let content = |bytes| Content::File(self.mode, bytes);
        all.into_iter().map(content).collect()
    }
}

/// What an append may leave: a prefix, zeros, or the later half without the first.
fn torn(before: &[u8], added: &[u8], tears: Tears) -> Vec<Vec<u8>> {
    let len = added.len();
    let cuts: Vec<usize> = match tears {
        Tears::Every => (0..len).collect(),
        Tears::Few => [1, len / 2, len.saturating_sub(1)].to_vec(),
    };
    let half = len / 2;
    let zeros = vec![0; len];
    let mut all: Vec<Vec<u8>> = cuts
        .into_iter()
        .map(|cut| [before, &added[..cut.min(len)]].concat())
        .collect();
    all.push([before, &zeros].concat());
    all.push([before, &zeros[..half], &added[half..]].concat());
    all.push([before, &added[..half], &zeros[half..]].concat());
    all
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, changes: &[(PathBuf, Option<Node>)]) {
    for (path, node) in changes {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for SimDisk {
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let state = self.state();
        let mut bytes = state.files[state.file(path)?].visible.clone();
        bytes.truncate(usize::try_from(len_max).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state
            .visible
            .keys()
            .filter(|path| path.parent() == Some(folder));
        let names = inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        Ok(names.collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().visible.contains_key(path))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let folder = state.folder_above(path)?;
        if state.visible.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(folder, vec![(path.into(), Some(Node::Folder))]);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.operation()?;
        let folder = state.folder_above(path)?;
        if state.visible.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = state.add(File {
            mode: FILE_MODE,
            ..File::default()
        });
        let number = state.files.len() - 1;
        state.change(folder, vec![(path.into(), Some(node))]);
        let disk = self.clone();
        Ok(Box::new(OpenFile { disk, number }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.state().file(path)?;
        let disk = self.clone();
        Ok(Box::new(OpenFile { disk, number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let node = Node::File(state.file(from)?);
        let folder = state.folder_above(to)?;
        state.change(folder, vec![(from.into(), None), (to.into(), Some(node))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.file(path)?;
        state.operation()?;
        let folder = state.folder_above(path)?;
        state.change(folder, vec![(path.into(), None)]);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let (synced, rest) = std::mem::take(&mut state.unsynced)
            .into_iter()
            .partition(|change| change.folder == folder);
        state.unsynced = rest;
        for change in Vec::<Change>::from_iter(synced) {
            apply(&mut state.durable, &change.names);
        }
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
struct OpenFile {
    disk: SimDisk,
    number: usize,
}

impl OpenFile {
    fn write(state: &mut State, number: usize, write: Write) {
        let file = &mut state.files[number];
        match &write {
            Write::Append(bytes) => file.visible.extend(bytes),
            Write::Truncate(len) => file.visible.truncate(*len),
        }
        file.unsynced.push(write);
    }
}

impl DiskFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let failed = state.operation();
        if state.off {
            return failed;
        }
        let len = if failed.is_ok() {
            bytes.len()
        } else {
            bytes.len() / 2
        };
        Self::write(&mut state, self.number, Write::Append(bytes[..len].into()));
        failed
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Self::write(&mut state, self.number, Write::Truncate(len));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.operation();
        let file = &mut state.files[self.number];
        file.lost |= result.is_err();
        if !file.lost {
            file.durable.clone_from(&file.visible);
            file.unsynced.clear();
        }
        result
    }
}

#[cfg(test)]
mod tests;
