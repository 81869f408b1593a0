/** How stable Effect says that its modules and their exports are, and what our sources use of the less stable ones. */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import { stabilities } from "../../scripts/api.ts"
import { importsOf, parse, root } from "./modules.ts"

/** The weaker of two marks. */
export const weaker = (one: string, other: string): string =>
  stabilities[Math.max(stabilities.indexOf(one), stabilities.indexOf(other))]!

/** A mark in a docstring, and the name that is declared or exported below it. */
const marked =
  /@stability (\w+)\n(?: *\*(?!\/).*\n)* *\*\/\n *(?:export (?:declare )?(?:abstract )?\w+ )?(?:\w+ as )?(\w+)/g

interface EffectModule {
  /** The mark of the module. One without is taken as experimental. */
  readonly own: string
  /** The marks of its exports by name; the weakest of a type and a value of one name. */
  readonly exports: ReadonlyMap<string, string>
}

const known = new Map<string, EffectModule>()

const moduleOf = (name: string): EffectModule => {
  const before = known.get(name)
  if (before !== undefined) return before
  const path = join(root, "node_modules/effect/src", `${name.slice("effect/".length)}.ts`)
  const text = existsSync(path) ? readFileSync(path, "utf8") : ""
  const exports = new Map<string, string>()
  for (const [, mark = "", name = ""] of text.matchAll(marked)) {
    exports.set(name, weaker(exports.get(name) ?? "stable", mark))
  }
  const module = { own: /@stability (\w+)/.exec(text.slice(0, text.indexOf("*/")))?.[1] ?? "experimental", exports }
  known.set(name, module)
  return module
}

/** What a file uses of Effect that is not stable: `effect/http/HttpClient`, or `effect/Metric remove`; each with its mark. */
export const lessStableIn = (file: string): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  const note = (name: string, mark: string): void => void (mark === "stable" || found.set(name, mark))
  for (const { from } of importsOf(file)) if (from.startsWith("effect/")) note(from, moduleOf(from).own)
  const source = parse(file)
  for (const node of source.statements) {
    if (!ts.isImportDeclaration(node)) continue
    const from = (node.moduleSpecifier as ts.StringLiteral).text
    const named = node.importClause?.namedBindings
    if (!from.startsWith("effect/") || named === undefined || moduleOf(from).own !== "stable") continue
    const used = ts.isNamedImports(named)
      ? named.elements.map(({ name, propertyName }) => (propertyName ?? name).text)
      : Array.from(source.text.matchAll(new RegExp(`\\b${named.name.text}\\.(\\w+)`, "g")), ([, member]) => member!)
    for (const name of used) note(`${from} ${name}`, moduleOf(from).exports.get(name) ?? "stable")
  }
  return found
}
