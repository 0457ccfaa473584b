import { defineConfig } from 'vitest/config';

export default defineConfig({
  build: {
    target: ['firefox115', 'chrome111', 'safari16.4'],
    // Everything is a file of our own origin: the content security policy allows neither data: nor inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    // `npm run dev` beside a running bridge.
    proxy: { '/api': { target: 'http://localhost:8443', ws: true } },
  },
  test: {
    include: ['src/**/*.test.{ts,tsx}'],
    environment: 'node',
  },
});
