//! The wire: CRI v1 and slipway.v1 messages and services, generated at build time from the files under `proto/`.
//! There is no logic here; beside the messages stands the little that both ends of a connection have to agree on.

pub mod http2;

/// Both files' descriptors, an encoded `google.protobuf.FileDescriptorSet` without source information.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The key of a gRPC status's metadata that reports a program which could not be executed. Its value is the exit status that
/// a shell has for that: 126 (can't be executed) or 127 (no such program).
pub const PROGRAM_STATUS: &str = "slipway-program-status";

/// The Container Runtime Interface.
pub mod runtime {
    /// Version 1, the one that kubelet speaks.
    pub mod v1 {
        pub use generated::*;

        #[expect(
            missing_docs,
            unused_qualifications,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::too_many_lines,
            reason = "generated code; what each thing means is in the proto file"
        )]
        mod generated {
            tonic::include_proto!("runtime.v1");
        }
    }
}

/// Slipway's own services.
pub mod slipway {
    /// Version 1.
    pub mod v1 {
        pub use generated::*;

        #[expect(
            missing_docs,
            unused_qualifications,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::too_many_lines,
            reason = "generated code; what each thing means is in the proto file"
        )]
        mod generated {
            tonic::include_proto!("slipway.v1");
        }
    }
}
