#!/usr/bin/env node
/** The installed `floodgate` command. It checks the version of Node first, because older ones cannot load its packages. */
import { launch } from "@floodgate/gateway/internal/launch"
import { version } from "./commands/version.ts"

await launch({ name: "floodgate", version, load: () => import("./bin.ts") })
