/** What the pack uses of the page of ComfyUI, which publishes no types of these modules. */
declare module "*/scripts/app.js" {
    export const app: any;
}
declare module "*/scripts/api.js" {
    export const api: {
        apiURL(route: string): string;
        fetchApi(route: string, options?: RequestInit): Promise<Response>;
        addEventListener(event: string, listener: (event: CustomEvent) => void, options?: { once: boolean }): void;
    };
}
