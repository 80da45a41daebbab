//! The broker core in a simulated world: scripts of frames, the frame x state matrix, and the seeded simulation.
//!
//! | file | what it is |
//! |---|---|
//! | `world`, `pool` | what stands in for shards: sockets, receive buffers, the mesh, the clock |
//! | `companion` | what stands in for the threads that forward |
//! | `wire`, `scripts` | a harness in which a test reads like a script of frames; one script a rule |
//! | `matrix` | every frame in every state of a stream, against a table |
//! | `guard` | who may do what in the simulation, and how that changes in mid-run |
//! | `simulation`, `model` | random clients that know what they may expect, from one seed |

mod companion;
mod guard;
mod matrix;
mod model;
mod pool;
mod rng;
mod scripts;
mod simulation;
mod wire;
mod world;
