//! Kubernetes: the shipped manifests hold together, with the configuration in them and with the program; and the sidecar's
//! life is played with real processes, by a kubelet that is the test and reads what to do from the manifest.

mod manifests;
mod sidecar;
