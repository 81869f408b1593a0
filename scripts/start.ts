/** `npm start`: the tour of `floodgate start`, on a fresh clone. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { runWith } from "../src/cli/index.ts"

NodeRuntime.runMain(Effect.provide(runWith(["start"]), NodeServices.layer))
