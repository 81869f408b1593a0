#!/usr/bin/env node
/** The `floodgate` command. Everything is in `floodgate/cli`; this provides what it needs of Node. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { main } from "./cli/index.ts"

// The reader of the output has gone (`| head`): a run stops as at Ctrl-C, so that it keeps its answers and frees its
// folder.
process.stdout.once("error", () => process.emit("SIGINT"))
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

NodeRuntime.runMain(Effect.provide(main, NodeServices.layer))
