import { createRequire } from "node:module"

/** The version of the package: sources and builds are as deep below its `package.json`. */
export const version = (createRequire(import.meta.url)("../../package.json") as { readonly version: string }).version
