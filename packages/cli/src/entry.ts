#!/usr/bin/env node
/** The installed `floodgate` command. It checks the version of Node first, because older ones cannot load its packages. */
import { withSmallYoungSpace } from "./youngSpace.ts"

const wanted = [22, 19] as const
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const load = () => import("./bin.ts")

if (major > wanted[0] || (major === wanted[0] && minor >= wanted[1])) {
  // A gateway runs for a long time beside the programs that it serves, so it should keep little memory.
  await (process.argv[2] === "gateway" ? withSmallYoungSpace(load) : load())
} else {
  console.error(`floodgate needs Node ${wanted.join(".")} or newer; this is ${process.version}: https://nodejs.org`)
  process.exitCode = 1
}
