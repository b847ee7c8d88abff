//! Where the time of a window goes, by the spans of the feature `tracing`: each driver's share, and
//! the rest, which is work on the page table.
//! `cargo run --features tracing --example trace_windows`

use emmu::{
    Machine, MachineConfig,
    driver::*,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::{Advice, MmapArgs, Prot},
};
use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context as Spans, prelude::*, registry::LookupSpan};

/// The facts about one span, and the callbacks inside of it.
struct Facts {
    begin: Instant,
    fields: Fields,
    callbacks: Vec<(String, Duration)>,
}

/// The values of a span's fields, in their order.
#[derive(Default)]
struct Fields(Vec<String>);

impl Visit for Fields {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.0.push(format!("{value:?}").replace('"', ""));
    }
}

/// Prints each window when it ends.
struct Windows;

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Windows {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, spans: Spans<'_, S>) {
        let mut facts = Facts {
            begin: Instant::now(),
            fields: Fields::default(),
            callbacks: Vec::new(),
        };
        attrs.record(&mut facts.fields);
        let span = spans.span(id).expect("it is new");
        span.extensions_mut().insert(facts);
    }
    fn on_close(&self, id: Id, spans: Spans<'_, S>) {
        let span = spans.span(&id).expect("it closes");
        let facts = span.extensions_mut().remove::<Facts>();
        let facts = facts.expect("put there when it was new");
        let took = facts.begin.elapsed();
        match span.name() {
            "callback" => {
                let [mmu, _range, pass] = &facts.fields.0[..] else {
                    return;
                };
                // The window that called the driver.
                if let Some(window) = span.parent() {
                    let mut extensions = window.extensions_mut();
                    let window = extensions.get_mut::<Facts>();
                    let window = window.expect("open as long as the callback");
                    window.callbacks.push((format!("{mmu} {pass}"), took));
                }
            }
            "window" => {
                println!("  window {} {took:>10.1?}", facts.fields.0.join(" "));
                let drivers: Duration = facts.callbacks.iter().map(|(_, took)| *took).sum();
                for (callback, took) in facts.callbacks {
                    println!("    {callback:<16} {took:>10.1?}");
                }
                let rest = took.saturating_sub(drivers);
                println!("    {:<16} {rest:>10.1?}", "the page table");
            }
            "call" => println!("{} {took:.1?}", facts.fields.0[0]),
            _ => {}
        }
    }
}

/// A device that takes its time to drop a range, as one does that asks over a network.
struct Remote(Gate<OrderedStore<Vpn>, (), Sleepable>);

impl ExternalMmu for Remote {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        cx.sleep(Duration::from_millis(3));
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::registry().with(Windows).init();
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (vm, _kvm) = Vm::create(&mut cx, &mm, VmConfig::default());
    let new = |seat| Arc::new(Remote(Gate::new(seat, OrderedStore::default(), ())));
    let (_remote, _registration) = mm.register(&mut cx, new);

    let pages = 2048;
    let len = pages * PAGE_SIZE;
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(len))?;
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages,
        hva: Vpn::containing(at),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot)?;
    let vcpu = vm.vcpu(&mut cx);
    for page in 0..pages {
        vcpu.store(&mut cx, page * PAGE_SIZE, 1)?;
    }
    mm.mprotect(&mut cx, at, len / 2, Prot::READ)?;
    mm.madvise(&mut cx, at, len, Advice::DontNeed)?;
    mm.munmap(&mut cx, at, len)?;
    mm.exit(&mut cx);
    Ok(())
}
