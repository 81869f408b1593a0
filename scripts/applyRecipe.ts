/**
 * Applies a recipe of skills/floodgate/SKILL.md to a program, and prints the result. The tests run such programs.
 *
 *     npm run -s example scripts/applyRecipe.ts openai program.mjs
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"

/** The skill, as a coding agent reads it. */
export const skill = readFileSync(join(import.meta.dirname, "../skills/floodgate/SKILL.md"), "utf8")

interface Change {
  readonly before: string
  readonly after: string
}

/** The changes of each recipe, by its heading. */
export const recipes: ReadonlyMap<string, ReadonlyArray<Change>> = new Map(
  skill
    .split(/^## /m)
    .map((section) => {
      const heading = section.slice(0, section.indexOf("\n"))
      const pairs = section.matchAll(/^Before:\n\n```\w+\n(.*?)\n```\n\nAfter:\n\n```\w+\n(.*?)\n```$/gms)
      return [heading, Array.from(pairs, ([, before, after]) => ({ before: before!, after: after! }))] as const
    })
    .filter(([, changes]) => changes.length > 0)
)

/** The program after the recipe. Throws unless it contains the code before each change exactly once. */
export const applyRecipe = (name: string, program: string): string => {
  const changes = recipes.get(name)
  if (changes === undefined) throw new Error(`no recipe ${name}; there are ${[...recipes.keys()].join(", ")}`)
  return changes.reduce((text, { after, before }) => {
    const parts = text.split(before)
    if (parts.length !== 2) throw new Error(`${name}: expected once, found ${parts.length - 1} times:\n${before}`)
    return parts.join(after)
  }, program)
}

if (import.meta.main) {
  const [name, file] = process.argv.slice(2)
  if (name === undefined || file === undefined) throw new Error("expected the name of a recipe, and a file")
  process.stdout.write(applyRecipe(name, readFileSync(file, "utf8")))
}
