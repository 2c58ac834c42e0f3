//! Holders and what each has, by place and generation: one that has left is known, and ignored.

use crate::HolderId;

#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<(u64, Option<T>)>,
    vacant: Vec<usize>,
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Slots<T> {
        Slots { slots: Vec::new(), vacant: Vec::new() }
    }

    pub(super) fn join(&mut self, value: T) -> HolderId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.1 = Some(value);
        HolderId { index, generation: slot.0 }
    }

    pub(super) fn leave(&mut self, id: HolderId) -> Option<T> {
        self.get(id)?;
        let slot = &mut self.slots[id.index];
        slot.0 += 1;
        self.vacant.push(id.index);
        slot.1.take()
    }

    pub(super) fn get(&self, id: HolderId) -> Option<&T> {
        let slot = self.slots.get(id.index).filter(|slot| slot.0 == id.generation)?;
        slot.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: HolderId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index).filter(|slot| slot.0 == id.generation)?;
        slot.1.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.1.as_ref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.1.as_mut())
    }
}
