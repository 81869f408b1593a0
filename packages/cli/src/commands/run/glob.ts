/** Patterns for `--include` and `--exclude`. Pure. */

/** A path that is matched is relative to a folder that was named, with slashes. */
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
 * `*` and `?` stand for characters of one name, `**` for any number of folders, `[a-c]` for one of some characters, and
 * `{md,txt}` for one of some texts. A pattern without a slash matches the name of a file or folder anywhere; one with a
 * slash matches from the folder that was named. What matches a folder matches everything in it. Undefined where the pattern
 * makes no sense.
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
