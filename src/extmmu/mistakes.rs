//! [`mistakes!`]: the mistakes that a model can be made with, for tests that must find them.

/// Defines an enum of mistakes, and the list of all.
macro_rules! mistakes {
    ($(#[$of:meta])* pub enum $name:ident { $($(#[$doc:meta])* $mistake:ident,)* }) => {
        $(#[$of])*
        pub enum $name { $($(#[$doc])* $mistake,)* }

        impl $name {
            /// Every mistake of the model.
            pub const ALL: &'static [Self] = &[$(Self::$mistake,)*];
        }
    };
}
