/** Patterns for `--include` and `--exclude`. Pure. */
import * as Glob from "effect/Glob"

/** Matches a path that is relative to a named folder and has slashes. */
export type Matcher = (path: string) => boolean

/**
 * Compiles a pattern; undefined if it is empty. The syntax is that of Effect's `Glob`: `*` and `?` match characters of one name, `**` any
 * number of folders, `[a-c]` one of these characters, and `{md,txt}` one of these texts. A pattern without a slash matches the
 * name of a file or folder at any depth; with a slash it matches from the named folder on. A pattern that matches a folder matches
 * everything in it.
 */
export const matcher = (pattern: string): Matcher | undefined => {
  const trimmed = pattern.replace(/^(\.\/|\/)/, "").replace(/\/+$/, "")
  if (trimmed === "") return undefined
  const glob = Glob.make(trimmed, { dot: true })
  const isAnchored = trimmed.includes("/")
  return (path) => {
    const names = path.split("/")
    return names.some((name, index) => Glob.match(glob, isAnchored ? names.slice(0, index + 1).join("/") : name))
  }
}
