#!/usr/bin/env node
/** The installed `floodgate` command. It checks the version of Node first, because older ones cannot load its packages. */

const wanted = [22, 19] as const
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

if (major > wanted[0] || (major === wanted[0] && minor >= wanted[1])) await import("./bin.ts")
else {
  console.error(`floodgate needs Node ${wanted.join(".")} or newer; this is ${process.version}: https://nodejs.org`)
  process.exitCode = 1
}
