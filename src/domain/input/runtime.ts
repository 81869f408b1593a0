/** Checks the runtime before anything is made that an older one would fail at later, call by call. */
import * as Predicate from "effect/Predicate"

/** The oldest version of Node with all that the library uses, as `engines` of the package says. */
const wanted = [22, 19] as const

/** The reason why a runtime with these versions is too old; undefined for others. Bun and Deno state a version of Node as well. */
const runtimeProblem = (versions: unknown): string | undefined => {
  if (!Predicate.hasProperty(versions, "node") || typeof versions.node !== "string") return undefined
  if ("bun" in versions || "deno" in versions) return undefined
  const [major = 0, minor = 0] = versions.node.split(".").map(Number)
  return major < wanted[0] || (major === wanted[0] && minor < wanted[1])
    ? `Floodgate needs Node ${wanted.join(".")} or newer; this is Node ${versions.node}: https://nodejs.org`
    : undefined
}

/** Throws an error if this runtime is too old. */
export const checkRuntime = (): void => {
  const process: unknown = Reflect.get(globalThis, "process")
  const problem = runtimeProblem(Predicate.hasProperty(process, "versions") ? process.versions : undefined)
  if (problem !== undefined) throw new Error(problem)
}
