//! The files of a log, its tiles and its checkpoint: all of it that is durable.

use std::io;

use super::Committed;
use super::draft::{Group, Place};
use super::store::{File as _, Store};
use crate::audit::merkle::Tree;
use crate::audit::tree::publish::Publisher;
use crate::clock::Tick;

pub(super) struct Files<S: Store> {
    pub(super) store: S,
    pub(super) publisher: Publisher,
    /// The last file, if lines can follow in it.
    pub(super) file: Option<S::File>,
    pub(super) number: u32,
    pub(super) length: u64,
    pub(super) tree: Tree,
}

impl<S: Store> Files<S> {
    pub(super) fn new(store: S, publisher: Publisher) -> Self {
        Self { store, publisher, file: None, number: 0, length: 0, tree: Tree::default() }
    }

    /// Where the next lines go.
    pub(super) fn place(&self) -> Place {
        Place {
            is_open: self.file.is_some(),
            number: self.number,
            length: self.length,
            tree: self.tree.clone(),
            is_born: self.store.is_entered(),
        }
    }

    /// Makes a group durable, and then writes the tiles and the checkpoint that are due. The outer error says that nothing of the
    /// group counts; the inner one that all of it does, and its tiles wait.
    pub(super) fn write(
        &mut self,
        group: &mut Group,
        now: Tick,
        durable: &mut impl FnMut(Committed),
    ) -> io::Result<io::Result<()>> {
        self.append(group)?;
        durable(group.committed);
        group.items.clear();
        Ok(self.publish(now, group.seals))
    }

    /// Nothing of the state changes unless all of it succeeded, but for the number of a file that is there already.
    fn append(&mut self, group: &mut Group) -> io::Result<()> {
        if group.opens {
            // The lines of the one before are durable already.
            self.file = None;
            let file = self.store.create(group.number);
            if file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
                // The remains of an attempt that failed; the next one takes the next number.
                self.number = group.number;
            }
            self.file = Some(file?);
            self.number = group.number;
            self.length = 0;
        }
        if let Some(file) = &mut self.file {
            file.append(self.length, group.lines())?;
            file.sync()?;
        }
        if !self.store.is_entered() {
            self.store.enter_birth()?;
        }
        self.length += group.lines().len() as u64;
        self.publisher.add(&group.completed);
        self.tree.clone_from(&group.tree);
        if group.seals {
            self.file = None;
        }
        Ok(())
    }

    /// Writes tiles and a checkpoint that are due, of what is durable.
    pub(super) fn publish(&mut self, now: Tick, force: bool) -> io::Result<()> {
        self.publisher.publish(&mut self.store, &self.tree, now, force)
    }

    /// Ends the file after an error, which is final for it: what the kernel still holds of it is not known. Whether what was written
    /// in part is gone from it.
    pub(super) fn abandon(&mut self) -> bool {
        let Some(mut file) = self.file.take() else { return true };
        let cut = file.cut(self.length).and_then(|()| file.sync()).is_ok();
        drop(file);
        if self.length == 0 && self.store.remove(self.number).is_ok() {
            self.number -= 1;
            return true;
        }
        cut
    }
}
