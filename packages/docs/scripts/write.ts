/**
 * Writes the pages of the site into `.pages`: those of `docs/`, the site's own in `pages/`, and the API from the sources. Beside
 * them it writes `llms.txt`, which lists the Markdown of each page.
 *
 * `SITE_REPOSITORY` is the address of the repository, for links to files that are no pages.
 */
import * as Effect from "effect/Effect"
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { apiPages } from "../src/api.ts"
import { pageOf, rewritten, summaryOf, titleOf } from "../src/links.ts"
import { moved, redirectOf } from "../src/moved.ts"
import { runs } from "../src/playground/runs.ts"
import { defaults } from "../src/playground/settings.ts"
import { sidebarOf } from "../src/sidebar.ts"
import { sectionOf, withTabs } from "../src/tabs.ts"

const here = join(import.meta.dirname, "..")
const root = join(here, "../..")
const out = join(here, ".pages")
const repository = process.env.SITE_REPOSITORY

const read = (file: string): string => readFileSync(join(root, file), "utf8")

const filesOfDocs = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
  .map((file) => `docs/${file.replaceAll("\\", "/")}`)
  .filter((file) => file.endsWith(".md") && file !== "docs/api.md")

/** The tabs of clients that have no section of their own on the page of clients. */
const furtherClients = () => {
  const effect = sectionOf(read("README.md"), "In an Effect app")
  const gateway = sectionOf(read("README.md"), "For clients in any language")
  return [
    { title: "Effect", text: `## Effect\n\n${rewritten(effect, "README.md", repository)}` },
    {
      title: "Python, Claude Code, Codex",
      text: `## Python, Claude Code, Codex\n\n${rewritten(gateway, "README.md", repository)}`
    }
  ]
}

/** Replaces a link to a section of another page, between two comments, by that section, so that figures are in one place. */
const included = (text: string): string =>
  text.replaceAll(
    /^<!-- section: (\S+) # (.+) -->\n[\s\S]*?^<!-- \/section -->$/gm,
    (_, file: string, heading: string) => rewritten(sectionOf(read(file), heading), file, repository)
  )

const pages = new Map<string, string>()
for (const file of [...filesOfDocs, "examples/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]) {
  const text = included(rewritten(read(file), file, repository))
  pages.set(
    pageOf(file)!,
    file === "docs/clients.md" ? withTabs(text, "Anthropic's SDK", "Anything else", furtherClients()) : text
  )
}
// The tool that writes the changelog begins it with the name of the package.
pages.set("changelog.md", pages.get("changelog.md")!.replace(/^# .*$/m, "# Changelog"))
for (const file of readdirSync(join(here, "pages"))) {
  pages.set(file, readFileSync(join(here, "pages", file), "utf8"))
}
const api = apiPages()
for (const { page, text } of api) pages.set(page, text)
pages.set(
  "api.md",
  [
    "# API",
    "Each module with its exports: signatures, units, defaults, errors, and examples that run as tests.",
    "| import | what it is |\n| --- | --- |",
    ...api.map(({ module, page, text }) => `| [\`${module}\`](${page}) | ${summaryOf(text).replaceAll("|", "\\|")} |`),
    ""
  ]
    .join("\n\n")
    .replaceAll("|\n\n|", "|\n|")
)

rmSync(out, { recursive: true, force: true })
/** Pages with wide tables take the room of the outline as well. */
const isWide = (page: string): boolean => page.startsWith("figures/") || page === "evidence.md"
for (const [page, text] of pages) {
  mkdirSync(dirname(join(out, page)), { recursive: true })
  writeFileSync(join(out, page), isWide(page) ? `---\naside: false\npageClass: wide\n---\n\n${text}` : text)
}
for (const [from, to] of Object.entries(moved)) writeFileSync(join(out, from), redirectOf(from, to))
cpSync(join(root, "docs/images"), join(out, "images"), { recursive: true })

/** Guides come before tables of figures, and those before the modules. */
const rank = (page: string): string => `${/^api\b/.test(page) ? 2 : Number(page.startsWith("figures/"))} ${page}`
const listed = [...pages].filter(([page]) => page !== "index.md").sort(([a], [b]) => (rank(a) < rank(b) ? -1 : 1))
const plain = (text: string): string => text.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
mkdirSync(join(out, "public"), { recursive: true })
writeFileSync(
  join(out, "public/llms.txt"),
  [
    "# Floodgate",
    "",
    "> Keeps parallel LLM calls inside a provider's rate limits: a TypeScript library for Effect and for promises, and a gateway for other languages.",
    "",
    ...listed.map(([page, text]) => `- [${titleOf(text) || page}](/${page}): ${plain(summaryOf(text))}`),
    ""
  ].join("\n")
)
// Each page is also there as Markdown, for tools and models that read it.
for (const [page, text] of listed) {
  mkdirSync(dirname(join(out, "public", page)), { recursive: true })
  writeFileSync(join(out, "public", page), text)
}
// The first picture of the page is in the page, so that nobody waits for a simulation to see it.
writeFileSync(join(out, "incident.json"), JSON.stringify(await Effect.runPromise(runs(defaults))))
writeFileSync(
  join(out, "sidebar.json"),
  JSON.stringify([
    ...sidebarOf(read("docs/README.md")),
    { text: "Modules", items: api.map(({ module, page }) => ({ text: module, link: `/${page.replace(/\.md$/, "")}` })) }
  ])
)
console.log(`wrote ${pages.size} pages`)
