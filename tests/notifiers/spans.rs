//! The spans and events that a subscriber of `tracing` gets (feature `tracing`).

use crate::common::{PAGE, RW, World, at, calls::READ};
use emmu::{
    addr::Vpn,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::Advice,
};
use std::{
    fmt::Debug,
    sync::{Arc, LazyLock, Mutex},
};
use tracing::{
    Dispatch, Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
    subscriber::NoSubscriber,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

/// A line for each span and event, indented by the spans that it lies in.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}").replace('"', "");
        self.0 += &format!(" {}={value}", field.name());
    }
}

impl Lines {
    fn put(&self, depth: usize, line: Line) {
        let line = format!("{}{}", "  ".repeat(depth), line.0);
        self.0.lock().unwrap().push(line);
    }
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Lines {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut line = Line(span.name().to_owned());
        attrs.record(&mut line);
        self.put(span.scope().count() - 1, line);
    }
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line(event.metadata().name().to_owned());
        event.record(&mut line);
        let depth = context.lookup_current().map_or(0, |s| s.scope().count());
        self.put(depth, line);
    }
}

/// A second subscriber, for good. While a process has one alone, a place in the code that a thread
/// without it comes to first is off for all threads (`tracing_core::callsite`, `JustOne`).
static OTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// Runs `f`, and has the lines of this thread meanwhile.
fn with_lines<T>(f: impl FnOnce(&Lines) -> T) -> T {
    LazyLock::force(&OTHER);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(subscriber, || f(&lines))
}

/// The lines of a store by a guest, of a call that takes the page, and of a call without drivers.
fn lines() -> [String; 3] {
    with_lines(|lines| {
        let mut w = World::new();
        w.map(0, 4, RW);
        let (vm, registration) = Vm::create(&mut w.thread.cx(), &w.mm, VmConfig::default());
        let slot = MemSlot {
            id: 0,
            gfn: Gfn(0),
            pages: 4,
            hva: Vpn::containing(at(0)),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(&mut w.thread.cx(), slot).unwrap();
        let vcpu = vm.vcpu(&mut w.thread.cx());
        lines.take();
        vcpu.store(&mut w.thread.cx(), PAGE, 1).unwrap();
        let store = lines.take();
        w.protect(1, 2, READ).unwrap();
        let protect = lines.take();
        drop(vcpu);
        registration.unregister(&mut w.thread.cx());
        lines.take();
        w.advise(0, 4, Advice::DontNeed).unwrap();
        let advise = lines.take();
        w.end();
        [store, protect, advise]
    })
}

#[test]
fn spans_lie_in_each_other_as_the_work_does() {
    let [store, protect, advise] = lines();
    let page = at(1) / PAGE;
    assert_eq!(
        store,
        format!(
            "resolve mmu=KVM range=0x10000001000-0x10000002000 access=Write\n\
             \x20 fault page={page} access=Write\n\
             asked mmu=KVM page={page}\n\
             admitted mmu=KVM range=0x10000001000-0x10000002000"
        )
    );
    assert_eq!(
        protect,
        "call name=mprotect start=1099511631872 len=8192\n\
         \x20 window range=0x10000001000-0x10000003000 reason=ProtectionVma\n\
         \x20   callback mmu=KVM range=0x10000001000-0x10000003000 pass=start\n\
         \x20   callback mmu=Recorder range=0x10000001000-0x10000003000 pass=start\n\
         \x20   callback mmu=Recorder range=0x10000001000-0x10000003000 pass=end\n\
         \x20   callback mmu=KVM range=0x10000001000-0x10000003000 pass=end"
    );
    let windows = advise.lines().filter(|line| line.contains("window"));
    assert_eq!(windows.count(), 3, "one for each mapping: {advise}");
    assert!(!advise.contains("KVM"), "it has left: {advise}");
}

/// Nothing is left of a thread's spans when a call has failed.
#[test]
fn a_call_that_fails_leaves_its_span() {
    let lines = with_lines(|lines| {
        let mut w = World::new();
        w.map(0, 1, RW);
        assert!(w.protect(0, 9, READ).is_err());
        assert!(tracing::Span::current().is_none());
        w.end();
        lines.take()
    });
    assert!(lines.contains("call name=mprotect"));
}
