#!/usr/bin/env node
/** The installed `floodgate` command. It checks the version of Node first, because older ones cannot load its packages. */
import { launch } from "@floodgate/gateway/internal/launch"
import { argv } from "node:process"

// A gateway runs for a long time beside the programs that it serves, so it should keep little memory.
await launch("floodgate", () => import("./bin.ts"), { isService: argv[2] === "gateway" })
