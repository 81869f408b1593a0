/**
 * A process that runs the tests of the card without a sabotage, and again with each one, which replaces a module for all our files. It
 * sends the result of each test to its parent.
 */
import { globSync } from "node:fs"
import { registerHooks } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { collect, tasks } from "../../scripts/mutation/vitest.ts"
import { sabotages } from "./sabotages.ts"

const root = join(import.meta.dirname, "../..")
const replacements = new URL("sabotage/", import.meta.url).href
const own = pathToFileURL(join(root, "/")).href
const shim = new URL("../../scripts/mutation/vitest.ts", import.meta.url).href

// Each sabotage has its own instance of every module: its name is in their URLs, and in those of their imports.
registerHooks({
  resolve: (name, context, next) => {
    const { parentURL = "" } = context
    if (name === "vitest" && parentURL !== shim) return { url: shim, format: "module-typescript", shortCircuit: true }
    const [from = "", played] = parentURL.split("?played=")
    if (played === undefined) return next(name, context)
    const sabotage = sabotages.find((each) => each.name === decodeURIComponent(played))
    const isReplaced = name === sabotage?.module && !from.startsWith(replacements)
    const resolved = isReplaced ? { url: `${replacements}${sabotage.file}`, shortCircuit: true } : next(name, context)
    const isOwn = resolved.url.startsWith(own) && !resolved.url.includes("/node_modules/")
    return isOwn ? { ...resolved, url: `${resolved.url}?played=${played}` } : resolved
  }
})

const files = globSync("test/*/card.test.ts", { cwd: root }).toSorted()

/** The error of each test under a sabotage; null if it passes. */
const play = async (sabotage: string): Promise<Record<string, string | null>> => {
  tasks.length = 0
  for (const file of files) {
    collect(file)
    await import(`${pathToFileURL(join(root, file)).href}?played=${encodeURIComponent(sabotage)}`)
  }
  const errors: Record<string, string | null> = {}
  for (const { name, run } of tasks) {
    const { signal } = new AbortController()
    // A test may also wait for ever, and nothing would then keep this process alive.
    const late = Promise.withResolvers<never>()
    const timer = setTimeout(() => late.reject(new Error("it does not end")), 3_000)
    const ended = Promise.resolve().then(() => run({ signal, onTestFinished: () => {} }))
    errors[name] = await Promise.race([ended, late.promise]).then(
      () => null,
      (error: unknown) => String(error)
    )
    clearTimeout(timer)
  }
  return errors
}

const played: Record<string, Record<string, string | null>> = {}
for (const name of ["nothing", ...sabotages.map((each) => each.name)]) played[name] = await play(name)
process.send!(played, () => process.exit(0))
