import { createRequire } from "node:module"

/** The version of the package. Sources and builds are equally deep below its `package.json`. */
export const version = (createRequire(import.meta.url)("../../package.json") as { readonly version: string }).version
