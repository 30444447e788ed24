//! Leases: what work in flight, containers and builds need is named here, before anyone looks whether it exists, so that a
//! collection at any moment leaves it alone.

use std::fmt;
use std::sync::Arc;

use crate::image::Image;
use crate::index::{Held, Index};
use crate::layers;
use crate::store::Shared;

/// Keeps what it was taken for from being collected while it, or a clone of it, lives.
#[derive(Clone)]
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Arc<Hold>);

struct Hold {
    shared: Arc<Shared>,
    held: Vec<Held>,
}

impl Lease {
    /// Takes a lease on these.
    pub(crate) fn take(shared: &Arc<Shared>, held: Vec<Held>) -> Self {
        let mut index = shared.index();
        Self::take_in(shared, &mut index, held)
    }

    /// Takes a lease on an image and its layers.
    pub(crate) fn of_image(shared: &Arc<Shared>, index: &mut Index, image: &Image) -> Self {
        let mut held = layers::held(&image.layers);
        held.push(Held::Image(image.id));
        Self::take_in(shared, index, held)
    }

    /// Takes a lease where the index is locked already.
    pub(crate) fn take_in(shared: &Arc<Shared>, index: &mut Index, held: Vec<Held>) -> Self {
        for one in &held {
            *index.leases.entry(*one).or_default() += 1;
        }
        Self(Arc::new(Hold { shared: Arc::clone(shared), held }))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for one in &self.held {
            if let Some(count) = index.leases.get_mut(one) {
                *count -= 1;
                if *count == 0 {
                    index.leases.remove(one);
                }
            }
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lease")
    }
}
