//! Configurations, bills, maps and findings, written and read back.

use crate::common::{PAGE, RW, World, at, calls::READ};
use emmu::{
    HugePoolConfig, HugeSize, MachineConfig, MemConfig, Overcommit,
    addr::{Vpn, VpnRange},
    extmmu::{
        Bill, References,
        gru::{GruConfig, GruMistake},
        kvm::{AccessedBits, GuestMemoryMistake, KvmMistake, VmConfig, VmType},
        xpmem::{OwnerConfig, XpmemMistake},
    },
    frame::Contents,
    mm::{KhugepagedLimits, MapsLine, VmFlags},
    notifier::{Access, Event, ExternalMmu},
    oracle::{Finding, Invariant, Oracle},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::Arc, time::Duration};

/// Writes a value, reads it back, and returns the text.
fn back_and_forth<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    let read: T = serde_json::from_str(&text).unwrap();
    assert_eq!(read, *value, "{text}");
    text
}

#[test]
fn configurations_come_back_as_they_were() {
    back_and_forth(&MachineConfig::default());
    let machine = MachineConfig {
        memory: MemConfig {
            frames: 7,
            contents: Contents::None,
            swap: 9,
        },
        overcommit: Overcommit::Heuristic,
        page_tables: Some(77),
        khugepaged: KhugepagedLimits {
            none: 1,
            shared: 2,
            swap: 3,
        },
        huge_pages: HugePoolConfig {
            pages: 4,
            overcommit: 5,
        },
        commit_total: Some(u64::MAX),
        ..MachineConfig::default()
    };
    back_and_forth(&machine);
    back_and_forth(&[HugeSize::Mib2, HugeSize::Gib1]);
    back_and_forth(&VmConfig {
        references: References::None,
        accessed: AccessedBits::Absent,
        vm_type: VmType::SwProtected,
        mistake: Some(KvmMistake::LateFlush),
        guest_mistake: Some(GuestMemoryMistake::FlagFlip),
    });
    back_and_forth(&GruConfig {
        preload: 3,
        ..GruConfig::default()
    });
    back_and_forth(&GruMistake::NoPurge);
    back_and_forth(&OwnerConfig {
        deadline: Duration::from_millis(1500),
        mistake: Some(XpmemMistake::NoWait),
        ..OwnerConfig::default()
    });
}

/// A file of settings names those that differ from Linux's; a misspelt one is refused.
#[test]
fn settings_that_are_left_out_have_their_defaults() {
    let read = serde_json::from_str::<MachineConfig>;
    let config = read(r#"{"memory": {"frames": 1024}, "max_map_count": 10}"#).unwrap();
    let memory = MemConfig {
        frames: 1024,
        ..MemConfig::default()
    };
    let expected = MachineConfig {
        memory,
        max_map_count: 10,
        ..MachineConfig::default()
    };
    assert_eq!(config, expected);
    let refused = read(r#"{"memory": {"frame": 1024}}"#).unwrap_err();
    assert!(refused.to_string().contains("unknown field `frame`"));
    assert!(read(r#"{"fork": "Never"}"#).is_err());
}

#[test]
fn maps_bills_and_ranges_come_back_as_they_were() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.share(4, 1);
    w.protect(1, 1, READ).unwrap();
    let maps: Vec<MapsLine> = w.mm.maps(&mut w.thread.cx());
    let text = back_and_forth(&maps);
    assert!(text.contains(r#""flags":"READ | "#), "{text}");
    assert!(maps[0].flags.contains(VmFlags::WRITE));
    back_and_forth(&Bill {
        windows: 3,
        in_windows: Duration::from_nanos(1_000_000_007),
        ..Bill::default()
    });
    back_and_forth(&VpnRange::ALL);
    let range = |text| serde_json::from_str::<VpnRange>(text);
    assert!(range(r#"{"start": 4, "end": 5}"#).is_ok());
    let empty = range(r#"{"start": 4, "end": 4}"#).unwrap_err();
    assert!(empty.to_string().contains("has no page"), "{empty}");
    w.end();
}

/// The findings of a driver that ignores windows, and of one that panics.
#[test]
fn findings_come_back_as_they_were() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.put(0, 1);
    let config = VmConfig {
        mistake: Some(KvmMistake::NoFlush),
        ..VmConfig::default()
    };
    let cx = &mut w.thread.cx();
    let oracle = Oracle::new(&w.machine);
    let (vm, _ends_with_the_space) = emmu::extmmu::kvm::Vm::create(cx, &w.mm, config);
    oracle.watch(&w.mm, Arc::clone(&vm) as Arc<dyn ExternalMmu>);
    vm.set_memory(
        cx,
        emmu::extmmu::kvm::MemSlot {
            id: 0,
            gfn: emmu::extmmu::kvm::Gfn(0),
            pages: 1,
            hva: Vpn::containing(at(0)),
            flags: emmu::extmmu::kvm::SlotFlags::empty(),
        },
    )
    .unwrap();
    let vcpu = vm.vcpu(cx);
    vcpu.store(cx, 0, 1).unwrap();
    w.mm.munmap(cx, at(0), PAGE).unwrap();
    let found = oracle.take();
    assert!(!found.is_empty());
    let text = back_and_forth(&found);
    assert!(text.contains(r#""mmu":"KVM""#), "{text}");

    let (at, window) = (Vpn(5), VpnRange::single(Vpn(5)));
    let after = Duration::from_secs(3);
    back_and_forth(&[
        Finding::LongWindow {
            window,
            after,
            waiting: Some("GRU"),
            slowest: Some(("another", after)),
        },
        Finding::StaleUse {
            mmu: "of an unknown kind",
            at,
            access: Access::Write,
            window,
        },
        Finding::Hidden("KVM"),
        Finding::WindowsLeft(2),
    ]);
    back_and_forth(&(Invariant::Alive, Event::SoftDirty));
}
