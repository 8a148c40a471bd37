#region License
// Copyright 2024 Example Traders
#endregion

#nullable enable
using Traders.Orders;

namespace Traders.Shop;

/// <summary>Starts the shop and serves its pages.</summary>
public static class Program
{
    /// <summary>Runs the server until it is told to stop.</summary>
    public static void Main(string[] args)
    {
        var server = Server.Create(args);
        server.Run();
    }

#if DEBUG
    /// <summary>Fills the shop with invented products.</summary>
    private static void Seed(Shop shop)
    {
        for (var n = 0; n < 10; n++) shop.Add(new Product($"P{n}"));
        shop.Save();
    }
#endif
}
