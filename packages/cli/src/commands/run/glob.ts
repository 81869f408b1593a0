/** Patterns for `--include` and `--exclude`. Pure. */

/** Matches a path that is relative to a named folder and has slashes. */
export type Matcher = (path: string) => boolean

const tokens = /\*\*\/|\*\*|\*|\?|\[!?[^\]]+\]|\{[^{}]*\}|[^]/g

const escaped = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")

const sourceOf = (pattern: string): string =>
  (pattern.match(tokens) ?? [])
    .map((token) => {
      if (token === "**/") return "(?:.*/)?"
      if (token === "**") return ".*"
      if (token === "*") return "[^/]*"
      if (token === "?") return "[^/]"
      if (token.length > 1 && token.startsWith("[")) {
        const isNegated = token.startsWith("[!")
        const set = token.slice(isNegated ? 2 : 1, -1).replaceAll(/[\\\]^[]/g, "\\$&")
        return `[${isNegated ? "^/" : ""}${set}]`
      }
      if (token.length > 1 && token.startsWith("{"))
        return `(?:${token.slice(1, -1).split(",").map(sourceOf).join("|")})`
      return escaped(token)
    })
    .join("")

/**
 * Compiles a pattern; undefined if it is invalid. `*` and `?` match characters of one name, `**` any number of folders, `[a-c]` one
 * of these characters, and `{md,txt}` one of these texts. A pattern without a slash matches the name of a file or folder at any
 * depth; with a slash it matches from the named folder on. A pattern that matches a folder matches everything in it.
 */
export const matcher = (pattern: string): Matcher | undefined => {
  const trimmed = pattern.replace(/^(\.\/|\/)/, "").replace(/\/+$/, "")
  if (trimmed === "") return undefined
  let regExp: RegExp
  try {
    regExp = new RegExp(`^(?:${sourceOf(trimmed)})$`, "su")
  } catch {
    return undefined
  }
  const isAnchored = trimmed.includes("/")
  return (path) => {
    const names = path.split("/")
    return names.some((name, index) => regExp.test(isAnchored ? names.slice(0, index + 1).join("/") : name))
  }
}
