//! A GRU context.

use super::follower::Follower;
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        gru::{Gru, GruConfig, GruContext, GruSpace},
    },
    mm::Mm,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Instructions(Arc<GruSpace>, GruContext);

impl Instructions {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Self {
        let grus = Gru::several(1, GruConfig::default());
        let (space, _stays) = GruSpace::attach(cx, mm, &grus, None);
        let context = GruContext::new(&space, 0).expect("there is a GRU");
        Self(space, context)
    }
}

impl Follower for Instructions {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.0.clone());
    }
    fn meter(&self) -> &Meter {
        self.0.meter()
    }
    fn held(&self, _cx: &mut CallCx<'_>) -> usize {
        self.1.gru().tlb_len()
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.1.read(cx, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.1.write(cx, addr, bytes);
    }
}
