/** Links of Markdown pages, as the site needs them. Pure. */
import { posix } from "node:path"

/** The addresses of the repository's pages on the site. Pages of `docs/` keep their names. */
const elsewhere: Readonly<Record<string, string>> = {
  "README.md": "index.md",
  "docs/README.md": "pages.md",
  "examples/README.md": "examples.md",
  "CONTRIBUTING.md": "contributing.md",
  "SECURITY.md": "security.md",
  "CHANGELOG.md": "changelog.md"
}

/** The page of the site for a file of the repository, or undefined if it has none. */
export const pageOf = (file: string): string | undefined => {
  if (Object.hasOwn(elsewhere, file)) return elsewhere[file]
  return /^docs\/.*\.md$/.test(file) ? file.slice("docs/".length) : undefined
}

/** The links of a page in code fences are examples, so they stay as they are. */
const outsideFences = (text: string, change: (part: string) => string): string =>
  text
    .split(/^(```[^\n]*\n[\s\S]*?^```$)/m)
    .map((part, index) => (index % 2 === 0 ? change(part) : part))
    .join("")

/**
 * Rewrites the links of a page. Links to pages lead to their place on the site; those to other files lead to the repository, or are
 * plain text where its address is unknown.
 */
export const rewritten = (text: string, file: string, repository: string | undefined): string => {
  const page = pageOf(file)!
  const target = (link: string): string | undefined => {
    const [path = "", anchor] = link.split("#") as [string?, string?]
    if (path === "" || /^[a-z]+:/.test(path)) return link
    const to = posix.normalize(posix.join(posix.dirname(file), path))
    const hash = anchor === undefined ? "" : `#${anchor}`
    const toPage = pageOf(to)
    if (toPage !== undefined) return posix.relative(posix.dirname(page), toPage) + hash
    if (to.startsWith("docs/images/")) {
      return `./${posix.relative(posix.dirname(page), to.slice("docs/".length))}`
    }
    return repository === undefined ? undefined : `${repository}/blob/main/${to}${hash}`
  }
  return outsideFences(text, (part) =>
    part.replace(/(!?)\[((?:[^\][]|\[[^\]]*\])*)\]\(([^)\s]+)\)/g, (_, image: string, label: string, link: string) => {
      const to = target(link)
      return to === undefined ? label : `${image}[${label}](${to})`
    })
  )
}

/** The title of a page: its first heading. */
export const titleOf = (text: string): string => /^# (.*)$/m.exec(text)?.[1] ?? ""

/** The first paragraph of a page, in one line. */
export const summaryOf = (text: string): string => {
  const paragraph = text
    .replace(/^---\n[\s\S]*?\n---\n/, "")
    .split(/\n\s*\n/)
    .find((part) => /^(?!```|[#<:|!-])/.test(part.trim()))
  return (paragraph ?? "").replaceAll(/\s+/g, " ").trim()
}
