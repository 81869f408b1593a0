import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitepress"
import { anchorOf } from "../src/tabs.ts"

const sidebar = join(import.meta.dirname, "../.pages/sidebar.json")

const icon =
  "data:image/svg+xml," +
  encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#12915c" d="M2 1h3v14H2zM11 1h3v14h-3zM5 6h6v3H5z"/></svg>`
  )

/** The weight of a page in the search: guides come before reference pages, and those before tables, exports and old versions. */
const weightOf = (address: string): number => {
  if (/\/(api|changelog|figures)\b/.test(address)) return 0.1
  if (/\/(architecture|evidence|security|contributing)\b/.test(address)) return 0.3
  return /\/failures\b/.test(address) ? 0.8 : 1
}

export default defineConfig({
  title: "Floodgate",
  description: "Run many LLM agents in parallel without 429s.",
  base: process.env.SITE_BASE ?? "/",
  srcDir: ".pages",
  srcExclude: ["public/**"],
  outDir: "dist",
  cleanUrls: true,
  head: [["link", { rel: "icon", href: icon }]],
  lastUpdated: false,
  markdown: { anchor: { slugify: anchorOf } },
  themeConfig: {
    search: {
      provider: "local",
      options: {
        miniSearch: {
          searchOptions: {
            fuzzy: 0.1,
            boostDocument: weightOf
          }
        }
      }
    },
    outline: [2, 3],
    nav: [
      { text: "Clients", link: "/clients" },
      { text: "Why, and how", link: "/why" },
      { text: "Evidence", link: "/evidence" },
      { text: "API", link: "/api" }
    ],
    sidebar: (existsSync(sidebar) ? JSON.parse(readFileSync(sidebar, "utf8")) : []).map(
      (group: object, index: number) => ({ ...group, collapsed: index > 1 })
    ),
    ...(process.env.SITE_REPOSITORY === undefined
      ? {}
      : { socialLinks: [{ icon: "github" as const, link: process.env.SITE_REPOSITORY }] })
  },
  vite: {
    // The playground runs the sources of the library, not a build of them.
    resolve: { conditions: ["@floodgate/source"] },
    worker: { format: "es" },
    // esbuild does not know the target of the repository's tsconfig.
    build: { chunkSizeWarningLimit: 1_000 },
    esbuild: { tsconfigRaw: { compilerOptions: { target: "es2022" } } }
  }
})
