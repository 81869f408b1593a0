#!/usr/bin/env node
/** The installed `floodgate-gateway` command. It checks the version of Node first, because older ones cannot load its packages. */
import { launch } from "../terminal/launch.ts"
import { version } from "./version.ts"

void launch({ name: "floodgate-gateway", version, load: () => import("./bin.ts") })
