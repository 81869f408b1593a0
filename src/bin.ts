#!/usr/bin/env node
/** The `floodgate` command. Everything is in `floodgate/cli`; this provides what it needs of Node. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { main } from "./cli/index.ts"

NodeRuntime.runMain(Effect.provide(main, NodeServices.layer))
